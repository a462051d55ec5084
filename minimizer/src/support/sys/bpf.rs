//! Calls of `bpf(2)` that no library offers in the form needed here: update a link in place, freeze a map, read the
//! instructions of a loaded program.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};

use zerocopy::{Immutable, IntoBytes};

const MAP_CREATE: libc::c_int = 0;
const MAP_UPDATE_ELEM: libc::c_int = 2;
const OBJ_GET_INFO_BY_FD: libc::c_int = 15;
const MAP_FREEZE: libc::c_int = 22;
const LINK_CREATE: libc::c_int = 28;
const LINK_UPDATE: libc::c_int = 29;
/// `BPF_XDP` of `enum bpf_attach_type`.
const ATTACH_XDP: u32 = 37;
/// `BPF_F_REPLACE`: update only if the link still has the expected program.
const REPLACE: u32 = 1 << 2;

/// Attributes of `BPF_LINK_CREATE` for XDP.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkCreate {
    program: RawFd,
    if_index: u32,
    attach_type: u32,
    flags: u32,
}

/// Attributes of `BPF_LINK_UPDATE`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct LinkUpdate {
    link: RawFd,
    new_program: RawFd,
    flags: u32,
    old_program: RawFd,
}

/// Attributes of `BPF_OBJ_GET_INFO_BY_FD`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct ObjectInfo {
    object: RawFd,
    info_octets: u32,
    info: u64,
}

/// The first fields of `struct bpf_prog_info`.
#[derive(Default, IntoBytes, Immutable)]
#[repr(C)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    machine_octets: u32,
    translated_octets: u32,
    machine: u64,
    translated: u64,
}

/// An attachment of a program to an interface. Dropping it detaches the program.
#[derive(Debug)]
pub struct XdpLink(OwnedFd);

impl XdpLink {
    /// Attaches a program. `flags` are `XDP_FLAGS_` of `linux/if_link.h`.
    ///
    /// # Errors
    /// `EBUSY` when another program is attached, `EINVAL` before Linux 5.9, and the driver's own errors.
    pub fn create(program: BorrowedFd<'_>, if_index: u32, flags: u32) -> io::Result<Self> {
        let mut attributes =
            LinkCreate { program: program.as_raw_fd(), if_index, attach_type: ATTACH_XDP, flags };
        let fd = bpf(LINK_CREATE, &mut attributes)?;
        // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(fd) }))
    }

    /// Replaces the program `old` by `new`: every packet runs through exactly one of them.
    ///
    /// # Errors
    /// `ENOLINK` when the interface is gone, `EPERM` when the link has another program than `old`. Nothing has changed
    /// then.
    pub fn update(&self, new: BorrowedFd<'_>, old: BorrowedFd<'_>) -> io::Result<()> {
        let mut attributes = LinkUpdate {
            link: self.0.as_raw_fd(),
            new_program: new.as_raw_fd(),
            flags: REPLACE,
            old_program: old.as_raw_fd(),
        };
        bpf(LINK_UPDATE, &mut attributes).map(drop)
    }
}

/// Attributes of `BPF_MAP_CREATE`, as far as they are needed.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapCreate {
    kind: u32,
    key_octets: u32,
    value_octets: u32,
    entries: u32,
    flags: u32,
    inner_map: RawFd,
}

/// Attributes of `BPF_MAP_UPDATE_ELEM`.
#[derive(IntoBytes, Immutable)]
#[repr(C)]
struct MapUpdate {
    map: RawFd,
    reserved: u32,
    key: u64,
    value: u64,
    flags: u64,
}

/// Waits until every program that now runs has ended. The kernel does that before it returns from an update of a map of maps,
/// so that is what this has.
#[derive(Debug)]
pub struct GracePeriod {
    outer: OwnedFd,
    inner: OwnedFd,
}

impl GracePeriod {
    const ARRAY: u32 = 2;
    const ARRAY_OF_MAPS: u32 = 12;

    /// Makes the maps.
    ///
    /// # Errors
    /// The kernel's error.
    pub fn new() -> io::Result<Self> {
        let create = |kind, inner_map| {
            let mut attributes =
                MapCreate { kind, key_octets: 4, value_octets: 4, entries: 1, flags: 0, inner_map };
            let fd = bpf(MAP_CREATE, &mut attributes)?;
            // SAFETY: the kernel has just returned this descriptor, and nothing else owns it.
            io::Result::Ok(unsafe { OwnedFd::from_raw_fd(fd) })
        };
        let inner = create(Self::ARRAY, 0)?;
        let outer = create(Self::ARRAY_OF_MAPS, inner.as_raw_fd())?;
        Ok(Self { outer, inner })
    }

    /// Waits.
    ///
    /// # Errors
    /// The kernel's error. It may not have waited then.
    pub fn wait(&self) -> io::Result<()> {
        let (key, value) = (0_u32, self.inner.as_raw_fd());
        let mut attributes = MapUpdate {
            map: self.outer.as_raw_fd(),
            reserved: 0,
            key: std::ptr::from_ref(&key).expose_provenance() as u64,
            value: std::ptr::from_ref(&value).expose_provenance() as u64,
            flags: 0,
        };
        bpf(MAP_UPDATE_ELEM, &mut attributes).map(drop)
    }
}

/// Freezes a map: no process can write it any more.
///
/// # Errors
/// The kernel's error.
pub fn freeze(map: impl AsFd) -> io::Result<()> {
    bpf(MAP_FREEZE, &mut map.as_fd().as_raw_fd()).map(drop)
}

/// The instructions of a loaded program as the kernel runs them, eight octets each. Those that the verifier removed as
/// dead are missing.
///
/// # Errors
/// The kernel's error. The list is empty where the kernel does not show instructions.
pub fn instructions(program: BorrowedFd<'_>) -> io::Result<Vec<u8>> {
    let mut info = ProgramInfo::default();
    ask(program, &mut info)?;
    let mut octets = vec![0; usize::try_from(info.translated_octets).unwrap_or(0)];
    info = ProgramInfo {
        translated_octets: info.translated_octets,
        translated: octets.as_mut_ptr().expose_provenance() as u64,
        ..ProgramInfo::default()
    };
    ask(program, &mut info)?;
    Ok(octets)
}

fn ask(program: BorrowedFd<'_>, info: &mut ProgramInfo) -> io::Result<()> {
    let info_octets = u32::try_from(size_of::<ProgramInfo>()).map_err(io::Error::other)?;
    let info = std::ptr::from_mut(info).expose_provenance() as u64;
    bpf(OBJ_GET_INFO_BY_FD, &mut ObjectInfo { object: program.as_raw_fd(), info_octets, info }).map(drop)
}

fn bpf<Attributes: IntoBytes + Immutable>(
    command: libc::c_int,
    attributes: &mut Attributes,
) -> io::Result<RawFd> {
    let octets = size_of::<Attributes>();
    // SAFETY: `octets` is the size of the attributes. They hold descriptors, or pointers to memory that the caller borrows,
    // for writing if the kernel writes it.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_mut(attributes), octets) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    RawFd::try_from(result).map_err(io::Error::other)
}
