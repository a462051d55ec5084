//! The interfaces through which this host's own traffic arrives: those with addresses, and those of default
//! routes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netlink_packet_core::{NLM_F_DUMP, NlasIterator, parse_u32};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::address::AddressMessage;
use netlink_packet_route::route::RouteMessage;

use super::{Netlink, NetlinkError};

/// Octets of `struct ifaddrmsg`: family, prefix length, flags, scope, index.
const ADDRESS_HEADER_OCTETS: usize = 8;
/// `IFA_ADDRESS`; on a point-to-point link it is the peer's address.
const ADDRESS: u16 = 1;
/// `IFA_LOCAL`.
const LOCAL: u16 = 2;
/// Octets of `struct rtmsg`. Its second octet is the length of the destination's prefix.
const ROUTE_HEADER_OCTETS: usize = 12;
/// `RTA_OIF`.
const OUTPUT_INTERFACE: u16 = 4;
/// `RTA_MULTIPATH`.
const MULTIPATH: u16 = 9;
/// Type `RTN_UNICAST`: routes that lead to an interface.
const UNICAST: u8 = 1;

/// An address of this host.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// Index of its interface.
    pub if_index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of its prefix.
    pub prefix_length: u8,
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_length)
    }
}

impl Netlink {
    /// The addresses of all interfaces.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn addresses(&mut self) -> Result<Vec<Address>, NetlinkError> {
        let request = RouteNetlinkMessage::GetAddress(AddressMessage::default());
        let answers = self.exchange.request(&request, NLM_F_DUMP)?;
        Ok(answers.iter().filter_map(|payload| address(payload)).collect())
    }

    /// Indices of the interfaces of all default routes, in every routing table.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn default_routes(&mut self) -> Result<Vec<u32>, NetlinkError> {
        let request = RouteNetlinkMessage::GetRoute(RouteMessage::default());
        let answers = self.exchange.request(&request, NLM_F_DUMP)?;
        Ok(answers.iter().flat_map(|payload| default_route(payload)).collect())
    }
}

fn attributes(payload: &[u8], header_octets: usize) -> impl Iterator<Item = (u16, &[u8])> {
    let attributes = NlasIterator::new(payload.get(header_octets..).unwrap_or(&[]));
    attributes.filter_map(Result::ok).filter_map(|attribute| {
        let value = attribute.into_inner().get(4..)?;
        Some((attribute.kind(), value.get(..attribute.value_length())?))
    })
}

fn address(payload: &[u8]) -> Option<Address> {
    let [_, prefix_length, _, _, if_index @ ..] = payload.first_chunk::<ADDRESS_HEADER_OCTETS>()?;
    let value = |wanted| {
        attributes(payload, ADDRESS_HEADER_OCTETS).find(|(kind, _)| *kind == wanted).map(|(_, value)| value)
    };
    let octets = value(LOCAL).or_else(|| value(ADDRESS))?;
    let address = match octets.len() {
        4 => IpAddr::from(Ipv4Addr::from(<[u8; 4]>::try_from(octets).ok()?)),
        16 => IpAddr::from(Ipv6Addr::from(<[u8; 16]>::try_from(octets).ok()?)),
        _ => return None,
    };
    Some(Address { if_index: u32::from_ne_bytes(*if_index), address, prefix_length: *prefix_length })
}

/// The interfaces of a default route. Another route gives none.
fn default_route(payload: &[u8]) -> Vec<u32> {
    let is_default = payload
        .first_chunk::<ROUTE_HEADER_OCTETS>()
        .is_some_and(|header| header[1] == 0 && header[7] == UNICAST);
    let mut if_indices = Vec::new();
    for (kind, value) in attributes(payload, ROUTE_HEADER_OCTETS).filter(|_| is_default) {
        match kind {
            OUTPUT_INTERFACE => if_indices.extend(parse_u32(value).ok()),
            MULTIPATH => if_indices.extend(next_hops(value)),
            _ => {}
        }
    }
    if_indices
}

/// The interfaces in a list of `struct rtnexthop`: length, flags, hops, index, attributes.
fn next_hops(mut rest: &[u8]) -> Vec<u32> {
    let mut if_indices = Vec::new();
    while let Some([low, high, _, _, if_index @ ..]) = rest.first_chunk::<8>() {
        if_indices.push(u32::from_ne_bytes(*if_index));
        let length = usize::from(u16::from_ne_bytes([*low, *high])).max(8).next_multiple_of(4);
        rest = rest.get(length..).unwrap_or(&[]);
    }
    if_indices
}

#[cfg(test)]
mod tests {
    use super::{Netlink, default_route, next_hops};

    #[test]
    fn loopback_has_its_address() {
        let addresses = Netlink::open().and_then(|mut netlink| netlink.addresses()).expect("addresses");
        let texts: Vec<_> = addresses.iter().filter(|address| address.if_index == 1).collect();
        // A new namespace has no address but those of the loopback interface, whose index is 1.
        assert!(texts.iter().all(|address| address.address.is_loopback()), "{texts:?}");
    }

    #[test]
    fn only_default_routes_count_with_all_of_their_next_hops() {
        let hop = |if_index: u8| [8, 0, 0, 0, if_index, 0, 0, 0];
        let hops = [hop(3), hop(5)].concat();
        assert_eq!(next_hops(&hops), [3, 5]);
        let route = |prefix_length| {
            let mut route = vec![2, prefix_length, 0, 0, 254, 3, 0, 1, 0, 0, 0, 0];
            route.extend([8, 0, 4, 0, 7, 0, 0, 0]);
            route.extend([20, 0, 9, 0]);
            route.extend(&hops);
            route
        };
        assert_eq!(default_route(&route(0)), [7, 3, 5]);
        assert!(default_route(&route(24)).is_empty());
        assert!(default_route(&[]).is_empty());
    }
}
