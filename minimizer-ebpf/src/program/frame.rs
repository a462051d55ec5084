//! The frame for which the kernel runs the program.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use minimizer_common::plan::Steps;
use minimizer_common::settings::LENGTH_BUFFER;
use minimizer_ebpf::parser::cursor::Frame;

use crate::program::constants::setting;

/// The frame for which the kernel runs the program.
#[derive(Clone, Copy)]
pub struct XdpFrame {
    pub context: *mut xdp_md,
    pub steps: Steps,
}

impl XdpFrame {
    #[inline(always)]
    pub fn of(context: *mut xdp_md) -> Self {
        Self { context, steps: Steps(setting!(plan.steps)) }
    }
}

// SAFETY: the kernel keeps `data..data_end` readable while the program runs.
unsafe impl Frame for XdpFrame {
    #[inline(always)]
    fn start(&self) -> *const u8 {
        // SAFETY: reads a field of the context.
        unsafe { (*self.context).data as usize as *const u8 }
    }

    #[inline(always)]
    fn end(&self) -> *const u8 {
        // SAFETY: reads a field of the context.
        unsafe { (*self.context).data_end as usize as *const u8 }
    }

    #[inline(always)]
    fn omits(&self, steps: Steps) -> bool {
        self.steps.intersects(steps)
    }

    #[inline(always)]
    fn has_scope(&self) -> bool {
        self.steps.intersects(Steps::SCOPE)
    }

    #[inline(always)]
    fn octets(&self) -> u32 {
        if setting!(frame_length) == LENGTH_BUFFER {
            // SAFETY: the helper reads the context of this program.
            let octets = unsafe { bpf_xdp_get_buff_len(self.context) };
            octets as u32
        } else {
            (self.end() as usize - self.start() as usize) as u32
        }
    }
}
