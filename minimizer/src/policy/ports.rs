//! What transforms of ports tell apart, and the least that the program must store for several of them.

use minimizer_common::plan::{LISTED_PLACES, Plan, listed_place};
use minimizer_ebpf::policy::minimize::{DYNAMIC, REGISTERED};

use crate::policy::transform::{Listed, Transform};

/// The ports that something tells apart from all others. Of the others it tells the class, or nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ports {
    /// The first port that is not told apart, unless it is listed: 0 to 65,536.
    pub below: u32,
    /// Ports from `below` on that are told apart.
    pub listed: Option<Listed>,
    /// Whether the classes of the others are told.
    pub classes: bool,
}

impl Ports {
    /// No port is told apart.
    pub const NONE: Self = Self { below: 0, listed: None, classes: false };
    /// Every port is.
    const ALL: Self = Self { below: 1 << u16::BITS, listed: None, classes: true };

    /// Those of a transform; `None` if it is none of ports.
    #[must_use]
    pub fn of(transform: Transform) -> Option<Self> {
        let ports = match transform {
            Transform::Exact => return Some(Self::ALL),
            Transform::PortClasses => Self { below: 0, listed: None, classes: true },
            Transform::ServicePorts { below } => Self { below: below.into(), listed: None, classes: false },
            Transform::ListedPorts { below, listed } => {
                Self { below: below.into(), listed: Some(listed), classes: false }
            }
            Transform::StoredPorts { below, listed } => Self { below: below.into(), listed, classes: true },
            _ => return None,
        };
        Some(ports.in_one_form())
    }

    /// The transform that leaves these ports.
    #[must_use]
    pub fn transform(self) -> Transform {
        let Self { below, listed, classes } = self.in_one_form();
        match (u16::try_from(below), listed, classes) {
            (Err(_), ..) => Transform::Exact,
            (Ok(0), None, true) => Transform::PortClasses,
            (Ok(below), listed, true) => Transform::StoredPorts { below, listed },
            (Ok(below), None, false) => Transform::ServicePorts { below: below.max(1) },
            (Ok(below), Some(listed), false) => Transform::ListedPorts { below, listed },
        }
    }

    /// What tells apart all that one of the two does, and no more. All ports, if more would have to be listed than can be: `check`
    /// refuses such policies.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        let (one, other) = (self.in_one_form(), other.in_one_form());
        let (below, classes) = (one.below.max(other.below), one.classes || other.classes);
        let listed =
            [one, other].into_iter().filter_map(|ports| ports.listed).flat_map(|listed| listed.ports());
        let listed: Vec<_> = listed.filter(|port| u32::from(*port) >= below).collect();
        if listed.is_empty() {
            return Self { below, listed: None, classes };
        }
        Listed::new(listed)
            .map_or(Self::ALL, |listed| Self { below, listed: Some(listed), classes }.in_one_form())
    }

    /// Whether all that `other` tells apart is told apart.
    #[must_use]
    pub fn tell(self, other: Self) -> bool {
        self.union(other) == self.in_one_form()
    }

    /// Makes the program store these ports of a side: 0 source, 1 destination.
    pub fn put(self, plan: &mut Plan, side: usize) {
        let Self { below, listed, classes } = self.in_one_form();
        plan.ports_below[side] = below;
        plan.port_classes[side] = match (classes && below <= u16::MAX.into(), below) {
            (false, _) => [0; 2],
            (true, 0) if listed.is_none() => [REGISTERED.into(), DYNAMIC.into()],
            // The last of a class is never listed. The first one could be.
            (true, _) => [u32::from(DYNAMIC) - 1, u16::MAX.into()],
        };
        let ports = listed.map(|listed| listed.ports()).unwrap_or_default();
        let (multiplier, places) = in_places(&ports).unwrap_or((0, [0; LISTED_PLACES]));
        plan.listed_multipliers[side] = multiplier;
        plan.listed_ports[side] = places;
    }

    /// The same ports in the one form in which two that are equal are alike: 0 is stored for what has no port, port 0 included, so
    /// that nothing tells it apart by itself; what is listed is not below, and not the next one.
    fn in_one_form(mut self) -> Self {
        if self.below == 1 {
            self.below = 0;
        }
        let Some(listed) = self.listed else { return self };
        while u16::try_from(self.below).is_ok_and(|next| listed.has(next)) {
            self.below += 1;
        }
        let listed: Vec<_> =
            listed.ports().into_iter().filter(|port| u32::from(*port) >= self.below).collect();
        self.listed = Listed::new(listed);
        self
    }
}

/// A multiplier under which no two of these ports have one place, and the places. `None` if there are no ports.
fn in_places(ports: &[u16]) -> Option<(u32, [u16; LISTED_PLACES])> {
    if ports.is_empty() {
        return None;
    }
    // Odd numbers that differ in all bits: one of fifty does for as many ports as can be listed.
    let multipliers = (0..).map(|number: u32| number.wrapping_mul(0x9e37_79b1) | 1);
    let in_places = |multiplier| {
        let mut places = [0; LISTED_PLACES];
        for port in ports {
            let place = &mut places[listed_place(multiplier, (*port).into())];
            if *place != 0 {
                return None;
            }
            *place = *port;
        }
        Some((multiplier, places))
    };
    multipliers.skip(1).find_map(in_places)
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use minimizer_common::plan::Plan;
    use minimizer_ebpf::policy::minimize::port;

    use super::{DYNAMIC, Ports, REGISTERED};
    use crate::policy::transform::{LISTED_STORED_MAX, Listed, Transform};

    fn listed(ports: &[u16]) -> Option<Listed> {
        Listed::new(ports.to_vec())
    }

    #[test]
    fn equal_ports_have_one_form() {
        let services = |below, ports: &[u16]| Ports { below, listed: listed(ports), classes: false };
        for (one, other) in [
            (services(0, &[]), services(1, &[])),
            (services(1024, &[1024, 1025, 1027]), services(1026, &[1027])),
            (services(1024, &[80, 443]), services(1024, &[])),
            (services(8081, &[8080]), services(8081, &[])),
        ] {
            assert_eq!(one.transform(), other.transform());
            assert!(one.tell(other) && other.tell(one));
        }
    }

    #[test]
    fn the_union_tells_apart_what_one_of_the_two_does_and_no_more() {
        let all = [
            Transform::PortClasses,
            Transform::ServicePorts { below: 1 },
            Transform::ServicePorts { below: 500 },
            Transform::ServicePorts { below: 5000 },
            Transform::ServicePorts { below: 60_000 },
            Transform::ListedPorts { below: 1024, listed: listed(&[3306, 8080]).expect("two") },
            Transform::ListedPorts { below: 22, listed: listed(&[443, 1023]).expect("two") },
        ];
        let told = |transform, port: u16| match transform {
            Transform::PortClasses => [0, REGISTERED, DYNAMIC].into_iter().rfind(|first| *first <= port),
            Transform::ServicePorts { below } => Some(if port < below { port } else { 0 }),
            Transform::ListedPorts { below, listed } => {
                Some(if port < below || listed.has(port) { port } else { 0 })
            }
            _ => None,
        };
        for (one, other) in all.iter().flat_map(|one| all.map(|other| (*one, other))) {
            let union = Ports::of(one).expect("ports").union(Ports::of(other).expect("ports"));
            let mut stored = BTreeMap::new();
            for port in 0..=u16::MAX {
                // By its own words: the port if it is below or listed, else its class where classes are told.
                let is_kept =
                    u32::from(port) < union.below || union.listed.is_some_and(|listed| listed.has(port));
                let class = told(Transform::PortClasses, port).filter(|_| union.classes).unwrap_or(0);
                let key = if is_kept && port != 0 { (true, port) } else { (false, class) };
                let both = (told(one, port), told(other, port));
                assert_eq!(*stored.entry(key).or_insert(both), both, "{one:?} {other:?} {port}");
            }
            let distinct: BTreeSet<_> = stored.values().collect();
            assert_eq!(distinct.len(), stored.len(), "{one:?} and {other:?} tell less apart than {union:?}");

            // The program stores as many values, each from ports that look alike to both, and what both get of a value is what they
            // get of its ports.
            let mut plan = Plan::EXACT;
            union.put(&mut plan, 1);
            let mut values = BTreeSet::new();
            for number in 0..=u16::MAX {
                let value = port(&plan, 1, number);
                values.insert(value);
                let both = |number| (told(one, number), told(other, number));
                assert_eq!(both(value), both(number), "{one:?} {other:?} {number} as {value}");
            }
            assert_eq!(values.len(), stored.len(), "{one:?} {other:?}");
        }
    }

    #[test]
    fn more_than_can_be_listed_are_all() {
        let of = |ports: std::ops::Range<u16>| Ports {
            below: 1024,
            listed: Listed::new(ports.step_by(2).collect()),
            classes: false,
        };
        let some = u16::try_from(LISTED_STORED_MAX).expect("few");
        let one = of(2000..2000 + some);
        assert!(one.union(of(4000..4000 + some)).listed.is_some());
        assert_eq!(one.union(of(4000..4002 + some)).transform(), Transform::Exact);
    }
}
