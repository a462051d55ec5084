//! Drivers with native XDP by kernel version, for kernels before 6.3, which do not report it.

use aya::util::KernelVersion;

/// First kernel with native XDP in each driver, from the kernel's history.
const NATIVE_SINCE: &[(&str, KernelVersion)] = &[
    ("bnxt_en", KernelVersion::new(4, 11, 0)),
    ("bond", KernelVersion::new(5, 15, 0)),
    ("bonding", KernelVersion::new(5, 15, 0)),
    ("cpsw", KernelVersion::new(5, 3, 0)),
    ("ena", KernelVersion::new(5, 6, 0)),
    ("fsl_dpaa2_eth", KernelVersion::new(5, 0, 0)),
    ("fsl_enetc", KernelVersion::new(5, 13, 0)),
    ("gve", KernelVersion::new(6, 4, 0)),
    ("hv_netvsc", KernelVersion::new(5, 6, 0)),
    ("i40e", KernelVersion::new(4, 13, 0)),
    ("ice", KernelVersion::new(5, 5, 0)),
    ("igb", KernelVersion::new(5, 10, 0)),
    ("igc", KernelVersion::new(5, 13, 0)),
    ("ixgbe", KernelVersion::new(4, 12, 0)),
    ("ixgbevf", KernelVersion::new(4, 17, 0)),
    ("mana", KernelVersion::new(5, 17, 0)),
    ("mlx4_en", KernelVersion::new(4, 8, 0)),
    ("mlx5_core", KernelVersion::new(4, 9, 0)),
    ("mvneta", KernelVersion::new(5, 5, 0)),
    ("mvpp2", KernelVersion::new(5, 9, 0)),
    ("nfp", KernelVersion::new(4, 10, 0)),
    ("qede", KernelVersion::new(4, 10, 0)),
    ("rvu_nicpf", KernelVersion::new(5, 16, 0)),
    ("sfc", KernelVersion::new(5, 5, 0)),
    ("st_gmac", KernelVersion::new(5, 13, 0)),
    ("thunder-nicvf", KernelVersion::new(4, 12, 0)),
    ("tun", KernelVersion::new(4, 14, 0)),
    ("veth", KernelVersion::new(4, 19, 0)),
    ("virtio_net", KernelVersion::new(4, 10, 0)),
    ("vmxnet3", KernelVersion::new(6, 6, 0)),
    ("xen-netfront", KernelVersion::new(5, 9, 0)),
];

/// Whether `driver` has native XDP on `kernel`; `None` when the driver is not known.
pub fn has_native_xdp(driver: &str, kernel: KernelVersion) -> Option<bool> {
    let (_, since) = NATIVE_SINCE.iter().find(|(name, _)| *name == driver)?;
    Some(kernel >= *since)
}
