//! What drivers say about their XDP support: the kernel's generic netlink family `netdev` (6.3 and later).

use std::collections::BTreeMap;
use std::io;

use netlink_packet_core::{
    DecodeError, DefaultNla, Emitable, Nla as _, NlasIterator, Parseable as _, ParseableParametrized,
    parse_u32, parse_u64,
};
use netlink_packet_generic::ctrl::nlas::GenlCtrlAttrs;
use netlink_packet_generic::ctrl::{GenlCtrl, GenlCtrlCmd};
use netlink_packet_generic::{GenlFamily, GenlHeader, GenlMessage};
use netlink_sys::protocols::NETLINK_GENERIC;

use super::dump::dump;

/// `NETDEV_CMD_DEV_GET` of `linux/netdev.h`.
const DEV_GET: u8 = 1;
/// `NETDEV_A_DEV_IFINDEX`.
const IF_INDEX: u16 = 1;
/// `NETDEV_A_DEV_XDP_FEATURES`.
const XDP_FEATURES: u16 = 3;
/// `NETDEV_XDP_ACT_BASIC`: pass, drop, abort, transmit.
const BASIC: u64 = 1 << 0;
/// `NETDEV_XDP_ACT_RX_SG`: frames of several buffers, what `xdp.frags` needs.
const MULTI_BUFFER: u64 = 1 << 5;

/// What a driver can do in native mode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct XdpFeatures {
    /// Programs can be attached.
    pub native: bool,
    /// Programs see frames that span several buffers.
    pub multi_buffer: bool,
}

/// Features by interface index; `None` when the kernel has no such family.
///
/// # Errors
/// What the netlink socket reports.
pub fn xdp_features() -> io::Result<Option<BTreeMap<u32, XdpFeatures>>> {
    let Some(family) = family_id()? else { return Ok(None) };
    let mut request = GenlMessage::from_payload(Device { attributes: Vec::new() });
    request.set_resolved_family_id(family);
    let answers = dump(NETLINK_GENERIC, request)?;
    Ok(Some(answers.into_iter().filter_map(|answer| answer.payload.features()).collect()))
}

/// Number of the family `netdev` on this kernel.
fn family_id() -> io::Result<Option<u16>> {
    let request = GenlMessage::from_payload(GenlCtrl { cmd: GenlCtrlCmd::GetFamily, nlas: Vec::new() });
    for family in dump(NETLINK_GENERIC, request)? {
        let attributes = &family.payload.nlas;
        let is_ours = |attribute: &GenlCtrlAttrs| matches!(attribute, GenlCtrlAttrs::FamilyName(name) if name == Device::family_name());
        if attributes.iter().any(is_ours) {
            return Ok(attributes.iter().find_map(|attribute| match attribute {
                GenlCtrlAttrs::FamilyId(id) => Some(*id),
                _ => None,
            }));
        }
    }
    Ok(None)
}

/// A message of the family.
#[derive(Clone, Debug)]
struct Device {
    attributes: Vec<DefaultNla>,
}

impl Device {
    fn features(&self) -> Option<(u32, XdpFeatures)> {
        let value = |kind| {
            let attribute = self.attributes.iter().find(|attribute| attribute.kind() == kind)?;
            let mut value = vec![0; attribute.value_len()];
            attribute.emit_value(&mut value);
            Some(value)
        };
        let if_index = parse_u32(&value(IF_INDEX)?).ok()?;
        let bits = parse_u64(&value(XDP_FEATURES)?).ok()?;
        let features = XdpFeatures { native: bits & BASIC != 0, multi_buffer: bits & MULTI_BUFFER != 0 };
        Some((if_index, features))
    }
}

impl GenlFamily for Device {
    fn family_name() -> &'static str {
        "netdev"
    }

    fn command(&self) -> u8 {
        DEV_GET
    }

    fn version(&self) -> u8 {
        1
    }
}

impl Emitable for Device {
    fn buffer_len(&self) -> usize {
        self.attributes.as_slice().buffer_len()
    }

    fn emit(&self, buffer: &mut [u8]) {
        self.attributes.as_slice().emit(buffer);
    }
}

impl ParseableParametrized<[u8], GenlHeader> for Device {
    fn parse_with_param(buffer: &[u8], _: GenlHeader) -> Result<Self, DecodeError> {
        let attributes = NlasIterator::new(buffer).map(|attribute| DefaultNla::parse(&attribute?));
        Ok(Self { attributes: attributes.collect::<Result<_, _>>()? })
    }
}
