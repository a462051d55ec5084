//! Checks of interfaces: link, native XDP, attached programs, MTU.

use std::ffi::OsStr;

use aya::programs::loaded_programs;
use aya::util::KernelVersion;
use minimizer_common::settings::{ACTION_PASS, PROGRAMS};

use super::drivers::has_native_xdp;
use super::{Check, Verdict};
use crate::interfaces::netlink::{AttachedXdp, Link, XdpFeatures, XdpMode};
use crate::interfaces::tap::HostTraffic;
use crate::support::printable;

const NATIVE_XDP: &str = "native xdp";
const MTU: &str = "mtu";
/// Largest MTU with which a frame, its tags and the driver's own data fit one page with every driver.
const MTU_ONE_BUFFER: u32 = 3000;

/// All checks of the named interfaces, or of all but loopback.
pub fn checks(names: &[String], links: &[Link], host: &HostTraffic) -> Vec<Check> {
    if names.is_empty() {
        // Nobody named these interfaces, so what one of them lacks is no failure.
        let mut checks: Vec<Check> =
            links.iter().filter(|link| !link.loopback).flat_map(|link| interface(link, host)).collect();
        for check in &mut checks {
            if check.check == NATIVE_XDP || check.check == MTU {
                check.verdict = check.verdict.min(Verdict::Warn);
            }
        }
        return checks;
    }
    names
        .iter()
        .flat_map(|text| match printable::canonical(text) {
            Ok(name) => match links.iter().find(|link| link.is_called(&name)) {
                Some(link) => interface(link, host),
                None => vec![unknown(&name, links)],
            },
            Err(error) => {
                let text = printable::argument(OsStr::new(text));
                vec![Check::fail(&text, "link", "this is not a name of an interface", error.to_string())]
            }
        })
        .collect()
}

fn unknown(name: &str, links: &[Link]) -> Check {
    let known: Vec<_> = links.iter().map(Link::all_names).collect();
    Check::fail(
        name,
        "link",
        "no such interface in this network namespace",
        format!("name one of: {}", known.join(", ")),
    )
}

fn interface(link: &Link, host: &HostTraffic) -> Vec<Check> {
    let kernel = KernelVersion::current().unwrap_or(KernelVersion::new(0, 0, 0));
    let mut checks = vec![state(link), native(link, kernel)];
    checks.extend(programs(link, program_name));
    checks.push(mtu(link));
    checks.push(tap(link, host));
    checks
}

fn state(link: &Link) -> Check {
    let (name, check) = (&link.name, "link");
    if !link.up {
        return Check::warn(
            name,
            check,
            "down",
            format!("ip link set dev {} up", printable::raw_shell_word(name)),
        );
    }
    if !link.carrier {
        return Check::warn(name, check, "up, without carrier", "connect the other end and bring it up");
    }
    Check::pass(name, check, "up")
}

fn native(link: &Link, kernel: KernelVersion) -> Check {
    let (name, check) = (&link.name, NATIVE_XDP);
    let driver = link.driver_or_kind();
    let skb = "use an interface whose driver has it; '--mode skb' works everywhere, several times slower";
    match link.features {
        Some(XdpFeatures { native: true, .. }) => {
            return Check::pass(name, check, format!("driver {driver} offers it"));
        }
        Some(XdpFeatures { native: false, .. }) => {
            return Check::fail(name, check, format!("driver {driver} does not offer it"), skb);
        }
        None => {}
    }
    match has_native_xdp(driver, kernel) {
        Some(true) => Check::pass(name, check, format!("driver {driver} has it on this kernel")),
        Some(false) => {
            Check::fail(name, check, format!("driver {driver} does not have it on this kernel"), skb)
        }
        None => {
            let evidence = format!("not known of driver {driver}; kernels from 6.3 on tell");
            Check::warn(
                name,
                check,
                evidence,
                format!("try 'minimizer run -i {}'; {skb}", printable::shell_word(name)),
            )
        }
    }
}

/// `name_of` gives the name of a program by its number.
fn programs(link: &Link, name_of: impl Fn(u32) -> Option<String>) -> Vec<Check> {
    let (name, check) = (&link.name, "xdp program");
    if link.xdp.is_empty() {
        return vec![Check::pass(name, check, "none attached")];
    }
    let ours = |name: &str| PROGRAMS.iter().find(|(ours, _)| *ours == name).map(|(_, action)| *action);
    let program = |attached: &AttachedXdp| {
        let (id, mode) = (attached.program_id, attached.mode.name());
        match name_of(id) {
            Some(program) if ours(&program) == Some(ACTION_PASS) => {
                Check::pass(name, check, format!("{program}, id {id}, {mode}: an agent is at work"))
            }
            Some(program) if ours(&program).is_some() => {
                let evidence =
                    format!("{program}, id {id}, {mode}: an agent is at work and drops every frame");
                Check::pass(name, check, evidence)
            }
            Some(program) => {
                let evidence = format!("foreign program {program}, id {id}, {mode}: it is never replaced");
                Check::fail(name, check, evidence, detach(name, attached))
            }
            None => {
                let evidence = format!("program id {id}, {mode}; whose it is only CAP_SYS_ADMIN may ask");
                Check::warn(name, check, evidence, "run doctor as root")
            }
        }
    };
    link.xdp.iter().map(program).collect()
}

fn detach(interface: &str, attached: &AttachedXdp) -> String {
    let kind = match attached.mode {
        XdpMode::Native => "xdpdrv",
        XdpMode::Skb => "xdpgeneric",
        XdpMode::Hardware => "xdpoffload",
    };
    format!(
        "stop the tool that attached it ('bpftool link' shows which process holds it), or, when it is left over, \
         'ip link set dev {} {kind} off'",
        printable::raw_shell_word(interface)
    )
}

/// `None` without CAP_SYS_ADMIN, which the kernel demands for names, or if the program has just ended.
fn program_name(id: u32) -> Option<String> {
    let program = loaded_programs().flatten().find(|program| program.id() == id)?;
    Some(program.name_as_str().unwrap_or_default().to_owned())
}

fn mtu(link: &Link) -> Check {
    let (name, check, mtu) = (&link.name, MTU, link.mtu_octets);
    if mtu <= MTU_ONE_BUFFER {
        return Check::pass(name, check, format!("{mtu}: a frame fits one buffer"));
    }
    match link.features {
        Some(XdpFeatures { multi_buffer: true, .. }) => {
            Check::pass(name, check, format!("{mtu}: the driver gives frames of several buffers (xdp.frags)"))
        }
        Some(XdpFeatures { native: true, .. }) => Check::fail(
            name,
            check,
            format!("{mtu}: the driver gives no frames of several buffers (xdp.frags)"),
            format!("ip link set dev {} mtu 1500, or '--mode skb'", printable::raw_shell_word(name)),
        ),
        Some(XdpFeatures { native: false, .. }) => {
            Check::pass(name, check, format!("{mtu}: of no account in mode skb"))
        }
        None => Check::warn(
            name,
            check,
            format!("{mtu}: whether the driver gives frames of several buffers is not known"),
            format!(
                "try 'minimizer run -i {}'; if it is refused, ip link set dev {} mtu 1500",
                printable::shell_word(name),
                printable::raw_shell_word(name)
            ),
        ),
    }
}

/// Always a pass: most interfaces are no taps.
fn tap(link: &Link, host: &HostTraffic) -> Check {
    let evidence = match host.through(link.index) {
        Some(traffic) => format!("refused: {traffic}"),
        None => {
            let word = printable::shell_word(&link.name);
            format!("'--tap {word}' is accepted: this host is not reached through it")
        }
    };
    Check::pass(&link.name, "tap", evidence)
}

#[cfg(test)]
mod tests {
    use aya::util::KernelVersion;

    use super::super::Verdict;
    use super::{checks, mtu, native, programs, state};
    use crate::interfaces::netlink::{AttachedXdp, Link, XdpFeatures, XdpMode};
    use crate::interfaces::tap::HostTraffic;

    fn link() -> Link {
        Link {
            driver: Some("ice".to_owned()),
            mtu_octets: 1500,
            up: true,
            carrier: true,
            features: Some(XdpFeatures { native: true, multi_buffer: false }),
            ..Link::named(2, "eth0")
        }
    }

    #[test]
    fn links_that_carry_nothing_are_a_drawback() {
        assert_eq!(state(&link()).verdict, Verdict::Pass);
        assert_eq!(state(&Link { carrier: false, ..link() }).verdict, Verdict::Warn);
        let down = state(&Link { up: false, ..link() });
        assert_eq!((down.verdict, down.fix.as_deref()), (Verdict::Warn, Some("ip link set dev eth0 up")));
    }

    #[test]
    fn the_kernels_word_on_native_xdp_comes_before_the_list() {
        let features = |native| Some(XdpFeatures { native, multi_buffer: false });
        let cases = [
            (features(true), "unheard_of", (6, 18), Verdict::Pass),
            (features(false), "ice", (6, 18), Verdict::Fail),
            (None, "ice", (5, 5), Verdict::Pass),
            (None, "ice", (5, 4), Verdict::Fail),
            (None, "unheard_of", (5, 15), Verdict::Warn),
        ];
        for (features, driver, (major, minor), verdict) in cases {
            let link = Link { features, driver: Some(driver.to_owned()), ..link() };
            let check = native(&link, KernelVersion::new(major, minor, 0));
            assert_eq!(check.verdict, verdict, "{driver} {features:?}");
        }
    }

    #[test]
    fn only_foreign_programs_are_in_the_way() {
        let name_of = |id| match id {
            1 => Some("minimizer".to_owned()),
            4 => Some("minimizer_tap".to_owned()),
            2 => Some("xdp_dispatcher".to_owned()),
            _ => None,
        };
        assert_eq!(programs(&link(), name_of)[0].verdict, Verdict::Pass);
        for (program_id, verdict) in
            [(1, Verdict::Pass), (4, Verdict::Pass), (2, Verdict::Fail), (3, Verdict::Warn)]
        {
            let xdp = vec![AttachedXdp { program_id, mode: XdpMode::Skb }];
            let checks = programs(&Link { xdp, ..link() }, name_of);
            assert_eq!((checks.len(), checks[0].verdict), (1, verdict), "{checks:?}");
        }
        let xdp = vec![AttachedXdp { program_id: 2, mode: XdpMode::Skb }];
        let foreign = &programs(&Link { xdp, ..link() }, name_of)[0];
        assert!(foreign.evidence.contains("xdp_dispatcher, id 2, skb"), "{foreign:?}");
        assert!(
            foreign.fix.as_ref().is_some_and(|fix| fix.contains("dev eth0 xdpgeneric off")),
            "{foreign:?}"
        );
    }

    #[test]
    fn jumbo_frames_need_several_buffers() {
        let features = |native, multi_buffer| Some(XdpFeatures { native, multi_buffer });
        let cases = [
            (1500, features(true, false), Verdict::Pass),
            (9000, features(true, true), Verdict::Pass),
            (9000, features(true, false), Verdict::Fail),
            (65_536, features(false, false), Verdict::Pass),
            (9000, None, Verdict::Warn),
        ];
        for (mtu_octets, features, verdict) in cases {
            assert_eq!(
                mtu(&Link { mtu_octets, features, ..link() }).verdict,
                verdict,
                "{mtu_octets} {features:?}"
            );
        }
    }

    #[test]
    fn all_but_loopback_are_examined_unless_named() {
        let features = Some(XdpFeatures { native: false, multi_buffer: false });
        let loopback = Link { name: "lo".to_owned(), loopback: true, features, ..link() };
        let other = Link { name: "ifb0".to_owned(), features, ..link() };
        assert!(
            checks(&[], &[other], &HostTraffic::default()).iter().all(|check| check.verdict != Verdict::Fail)
        );
        let links = [loopback, link()];
        assert!(checks(&[], &links, &HostTraffic::default()).iter().all(|check| check.subject == "eth0"));
        let named = checks(&["lo".to_owned(), "eth9".to_owned()], &links, &HostTraffic::default());
        assert!(named.iter().any(|check| check.subject == "lo" && check.verdict == Verdict::Fail));
        let unknown = named.last().expect("a check of eth9");
        assert_eq!((unknown.subject.as_str(), unknown.verdict), ("eth9", Verdict::Fail));
        assert_eq!(unknown.fix.as_deref(), Some("name one of: lo, eth0"));
    }
}
