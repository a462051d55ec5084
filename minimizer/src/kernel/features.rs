//! What the running kernel lacks, and what the program uses instead.

use aya::maps::MapData;
use aya::programs::ProgramType;
use aya::sys::{BpfHelper, is_helper_supported};
use aya::util::KernelVersion;
use aya_obj::generated::bpf_map_type::BPF_MAP_TYPE_ARRAY;

/// The first kernel with multi-buffer XDP, and with the helper that gives the length of such a frame.
pub const MULTI_BUFFER_VERSION: KernelVersion = KernelVersion::new(5, 18, 0);

/// Name of the program's section. It makes the loader ask for frames of several buffers.
const MULTI_BUFFER_SECTION: &[u8] = b"xdp.frags\0";
/// Section of a program for frames of one buffer. Its name is the beginning of the other one.
const SINGLE_BUFFER_SECTION: &[u8] = b"xdp\0";

/// What differs between the kernels on which the program runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kernel {
    /// Whether a frame may have several buffers, and the kernel gives its whole length. Otherwise the program
    /// is one for frames of one buffer, and drivers refuse it on interfaces with jumbo frames.
    pub multi_buffer: bool,
    /// Whether a value of an array may be larger than [`SMALL_VALUE_BYTES`].
    pub large_values: bool,
}

/// Largest value of an array in Linux 5.10 and 6.1: what the kernel's allocator can give in one piece on x86.
pub const SMALL_VALUE_BYTES: u32 = 4 << 20;
/// Largest value in which the verifier lets a program use offsets that it computes: they stay below 2^29.
const LARGE_VALUE_BYTES: u32 = 1 << 28;

impl Kernel {
    /// Asks whether the kernel has the helper, because distributions backport it to older versions. The
    /// version decides if this process may not ask.
    #[must_use]
    pub fn detect() -> Self {
        let by_version = || KernelVersion::current().is_ok_and(|version| version >= MULTI_BUFFER_VERSION);
        let helper = is_helper_supported(ProgramType::Xdp, BpfHelper::BPF_FUNC_xdp_get_buff_len);
        Self { multi_buffer: helper.unwrap_or_else(|_| by_version()), large_values: has_large_values() }
    }

    /// Bytes of the largest value in which the program finds everything with one look-up.
    #[must_use]
    pub const fn value_bytes_max(self) -> u32 {
        if self.large_values { LARGE_VALUE_BYTES } else { SMALL_VALUE_BYTES }
    }

    /// Changes an object into one that this kernel loads.
    pub(crate) fn adapt(self, object: &mut [u8]) {
        if self.multi_buffer {
            return;
        }
        // The table of sections has the name, and so has the type information, which refers to it.
        let octets = MULTI_BUFFER_SECTION.len();
        for start in 0..(object.len() + 1).saturating_sub(octets) {
            let name = &mut object[start..start + octets];
            if name == MULTI_BUFFER_SECTION {
                name[..SINGLE_BUFFER_SECTION.len()].copy_from_slice(SINGLE_BUFFER_SECTION);
            }
        }
    }
}

/// Asks the kernel for an array with one value that is a little larger. It is gone at once.
fn has_large_values() -> bool {
    const KEY_BYTES: u32 = u32::BITS / u8::BITS;
    const WORD_BYTES: u32 = u64::BITS / u8::BITS;
    let map = aya_obj::Map::new_from_params(
        BPF_MAP_TYPE_ARRAY as u32,
        KEY_BYTES,
        SMALL_VALUE_BYTES + WORD_BYTES,
        1,
        0,
    );
    MapData::create(map, "large_value", None).is_ok()
}

#[cfg(test)]
mod tests {
    use super::Kernel;

    #[test]
    fn only_a_kernel_without_several_buffers_gets_another_section() {
        let object = *b"\0.relxdp.frags\0.text\0xdp.frags\0";
        let mut adapted = object;
        Kernel { multi_buffer: true, large_values: true }.adapt(&mut adapted);
        assert_eq!(adapted, object);
        Kernel { multi_buffer: false, large_values: false }.adapt(&mut adapted);
        assert_eq!(&adapted, b"\0.relxdp\0frags\0.text\0xdp\0frags\0");
    }
}
