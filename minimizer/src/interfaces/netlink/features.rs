//! What drivers report about their XDP support, through the kernel's generic netlink family `netdev` (Linux
//! 6.3 and later).

use std::collections::BTreeMap;

use netlink_packet_core::{NLM_F_DUMP, NetlinkSerializable, NlasIterator, parse_u32, parse_u64};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::exchange::{Exchange, ExchangeError};

/// Octets of `struct genlmsghdr`, which precedes the attributes.
const HEADER_OCTETS: usize = 4;
/// `GENL_ID_CTRL` of `linux/genetlink.h`: the family that knows all other families.
const CONTROLLER: u16 = 0x10;
/// `CTRL_CMD_GETFAMILY`.
const GET_FAMILY: u8 = 3;
/// `CTRL_ATTR_FAMILY_ID`.
const FAMILY_ID: u16 = 1;
/// `CTRL_ATTR_FAMILY_NAME`.
const FAMILY_NAME: u16 = 2;
/// `NETDEV_FAMILY_NAME` of `linux/netdev.h`, as a C string.
const NETDEV: &[u8] = b"netdev\0";
/// `NETDEV_CMD_DEV_GET`.
const DEV_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`.
const IF_INDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`.
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: pass, drop, abort, transmit.
const BASIC: u64 = 1 << 0;
/// `NETDEV_XDP_ACT_RX_SG`: frames of several buffers, which `xdp.frags` needs.
const MULTI_BUFFER: u64 = 1 << 5;

/// What a driver supports in native mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// It can attach programs.
    pub native: bool,
    /// Its programs see frames that span several buffers.
    pub multi_buffer: bool,
}

/// Features by interface index; `None` if the kernel has no such family.
///
/// # Errors
/// The error of the netlink socket.
pub fn xdp_features() -> Result<Option<BTreeMap<u32, XdpFeatures>>, ExchangeError> {
    let mut exchange = Exchange::open(NETLINK_GENERIC)?;
    let families = exchange.request(&Request { family: CONTROLLER, command: GET_FAMILY }, NLM_F_DUMP)?;
    let netdev = families.iter().find(|family| attribute(family, FAMILY_NAME).as_deref() == Some(NETDEV));
    let id =
        netdev.and_then(|family| u16::from_ne_bytes(attribute(family, FAMILY_ID)?.try_into().ok()?).into());
    let Some(family) = id else { return Ok(None) };
    let devices = exchange.request(&Request { family, command: DEV_GET }, NLM_F_DUMP)?;
    Ok(Some(devices.iter().filter_map(|device| features(device)).collect()))
}

fn features(device: &[u8]) -> Option<(u32, XdpFeatures)> {
    let if_index = parse_u32(&attribute(device, IF_INDEX)?).ok()?;
    let bits = parse_u64(&attribute(device, XDP_FEATURES)?).ok()?;
    Some((if_index, XdpFeatures { native: bits & BASIC != 0, multi_buffer: bits & MULTI_BUFFER != 0 }))
}

/// The value of an attribute of a generic netlink message.
fn attribute(message: &[u8], kind: u16) -> Option<Vec<u8>> {
    let attributes = NlasIterator::new(message.get(HEADER_OCTETS..)?).filter_map(Result::ok);
    let found =
        attributes.filter(|attribute| attribute.kind() == kind).map(|attribute| attribute.value().to_vec());
    found.last()
}

/// A request without attributes to a generic netlink family.
#[derive(Clone)]
struct Request {
    family: u16,
    command: u8,
}

impl NetlinkSerializable for Request {
    fn message_type(&self) -> u16 {
        self.family
    }

    fn buffer_len(&self) -> usize {
        HEADER_OCTETS
    }

    fn serialize(&self, buffer: &mut [u8]) {
        let version = 1;
        buffer[..HEADER_OCTETS].copy_from_slice(&[self.command, version, 0, 0]);
    }
}
