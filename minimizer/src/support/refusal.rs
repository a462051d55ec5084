//! What the kernel refused, by the name of its error, and what most likely helps.

use std::error::Error;
use std::fs;
use std::io;

use nix::errno::Errno;
use rustix::process::{Resource, getrlimit};

use crate::support::privilege;

/// `ENOTSUPP` of the kernel's own errors: it reaches processes, and no C library knows it.
const ENOTSUPP: i32 = 524;

/// What was asked of the kernel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    /// To make a map of the program.
    Map,
    /// To make the map of a flow table, whose size the operator chose.
    FlowTable,
    /// To map a map into memory.
    Memory,
    /// To read or write a map.
    Use,
    /// To load the program.
    Program,
    /// To tell about a loaded program.
    Info,
    /// To run the program on a given frame.
    Frame,
    /// To attach the program in the driver.
    Native,
    /// To attach the program in the network stack.
    Skb,
    /// To put another program into a link.
    Replace,
    /// To give a netlink socket.
    Netlink,
    /// To make an interface or to change one.
    Interface,
    /// To make a network namespace.
    Namespace,
    /// To give a packet socket.
    PacketSocket,
    /// To send a frame.
    Send,
    /// To start a thread.
    Thread,
    /// To listen on an address.
    Listen,
}

/// What else about this process and this kernel explains a refusal. Files are read only when an explanation is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Surroundings {
    /// Whether the process is in a user namespace other than the host's.
    pub user_namespace: bool,
    /// Whether a seccomp filter is in force.
    pub seccomp: bool,
    /// The mode of the kernel's lockdown; `None` if there is none.
    pub lockdown: Option<String>,
    /// The most file descriptors of this process.
    pub files_max: Option<u64>,
    /// Whether the kernel charges maps to the limit of locked memory, as those before 5.11 do.
    pub charges_locked_memory: bool,
}

impl Surroundings {
    /// Asks the kernel. What it does not tell counts as not there.
    #[must_use]
    pub fn read() -> Self {
        let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
        let seccomp = status.lines().find_map(|line| line.strip_prefix("Seccomp:"));
        let lockdown = fs::read_to_string("/sys/kernel/security/lockdown").unwrap_or_default();
        let lockdown = lockdown.split(['[', ']']).nth(1).filter(|mode| *mode != "none");
        let version = aya::util::KernelVersion::current().ok();
        Self {
            user_namespace: privilege::in_user_namespace().unwrap_or(false),
            seccomp: seccomp.is_some_and(|mode| mode.trim() == "2"),
            lockdown: lockdown.map(str::to_owned),
            files_max: getrlimit(Resource::Nofile).current,
            charges_locked_memory: version.is_some_and(|it| it < aya::util::KernelVersion::new(5, 11, 0)),
        }
    }
}

/// What an error of the kernel is called, and what most likely helps: `No such device (ENODEV): the interface has gone`.
#[must_use]
pub fn told(asked: Asked, error: &io::Error) -> String {
    let Some(number) = error.raw_os_error() else { return error.to_string() };
    match hint(asked, number, &Surroundings::read()) {
        Some(hint) => format!("{}: {hint}", named(number)),
        None => named(number),
    }
}

/// The messages of an error and of its causes, down to the error of the kernel, which is told as [`told`] does.
#[must_use]
pub fn told_with_causes(asked: Asked, error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next = Some(error);
    while let Some(cause) = next {
        let said = cause.to_string();
        if let Some(kernel) = cause.downcast_ref::<io::Error>().filter(|it| it.raw_os_error().is_some()) {
            // A message that has the cause's in it is completed, not repeated.
            let before = match text.split_once(&said) {
                Some((before, behind)) => format!("{before}{}{behind}", name_of(kernel)),
                None if text.is_empty() => name_of(kernel),
                None => format!("{text}: {}", name_of(kernel)),
            };
            let hint = kernel.raw_os_error().and_then(|number| hint(asked, number, &Surroundings::read()));
            return hint.map_or(before.clone(), |hint| format!("{}: {hint}", before.trim_end()));
        }
        if text.is_empty() {
            text = said;
        } else if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    text
}

/// What the error says, and its name: `Too many open files (EMFILE)`.
fn named(number: i32) -> String {
    if number == ENOTSUPP {
        return "Operation not supported (ENOTSUPP)".to_owned();
    }
    let said = io::Error::from_raw_os_error(number).to_string();
    let said = said.strip_suffix(&format!(" (os error {number})")).unwrap_or(&said);
    match Errno::from_raw(number) {
        Errno::UnknownErrno => format!("{said} (errno {number})"),
        error => format!("{said} ({error:?})"),
    }
}

fn name_of(error: &io::Error) -> String {
    error.raw_os_error().map_or_else(|| error.to_string(), named)
}

/// What most likely helps against an error of the kernel; `None` if its name says all that is known.
#[must_use]
#[expect(clippy::too_many_lines, reason = "a table")]
pub fn hint(asked: Asked, number: i32, surroundings: &Surroundings) -> Option<String> {
    use Asked::{
        FlowTable, Frame, Info, Interface, Listen, Map, Memory, Namespace, Native, Netlink, PacketSocket,
        Program, Replace, Send, Skb, Thread, Use,
    };
    let text = match (asked, number) {
        (_, libc::EMFILE) => {
            let limit =
                surroundings.files_max.map_or_else(|| "so many".to_owned(), |limit| limit.to_string());
            return Some(format!(
                "this process may have {limit} files open, and has them (RLIMIT_NOFILE); raise the limit with \
                 'ulimit -n 1024' or LimitNOFILE= of the systemd unit"
            ));
        }
        (_, libc::ENFILE) => {
            "all processes of this host together have as many files open as they may; raise the limit with \
             'sysctl -w fs.file-max='"
        }
        (Send, libc::EMSGSIZE | libc::EINVAL) => {
            "no frame has a length that the interface can send: 14 octets up to its MTU and the header"
        }
        (Send, libc::ENETDOWN) => "the interface is down",
        (Memory, libc::EPERM) => {
            "a map that is frozen cannot be mapped for writing; this is a defect, please report it"
        }
        (Replace, libc::EPERM) => "somebody has put another program into the link",
        (Listen, libc::EACCES) => {
            "ports below 1024 take CAP_NET_BIND_SERVICE; choose another port with '--listen', or grant it"
        }
        (_, libc::EPERM | libc::EACCES) => return Some(not_permitted(asked, number, surroundings)),
        (Map | FlowTable | Use | Program | Info | Frame | Native | Skb | Replace, libc::ENOSYS) => {
            return Some(if surroundings.seccomp {
                "a seccomp filter keeps bpf(2) from this process; permit it in the profile of the container, or in \
                 SystemCallFilter= of the systemd unit"
                    .to_owned()
            } else {
                "this kernel was built without CONFIG_BPF_SYSCALL".to_owned()
            });
        }
        (_, libc::ENOSYS) if surroundings.seccomp => {
            "a seccomp filter keeps this system call from this process; permit it in the profile of the container, or in \
             SystemCallFilter= of the systemd unit"
        }
        (FlowTable, libc::ENOMEM | libc::E2BIG | libc::ENOSPC) => {
            "the host, or a memory limit of its control group (MemoryMax= of the systemd unit), has too little memory for \
             it; lower --flows or --flows-per-cpu"
        }
        (Memory, libc::ENOMEM) => {
            "the address space of this process has no room for it; raise RLIMIT_AS ('ulimit -v unlimited', LimitAS= of the \
             systemd unit), or lower --flows or --flows-per-cpu"
        }
        (Map | Use, libc::ENOMEM | libc::E2BIG) => {
            "the host, or a memory limit of its control group (MemoryMax= of the systemd unit), has too little memory for \
             it; give it more, or shorten the policy's lists of prefixes and indicators"
        }
        (Program, libc::E2BIG | libc::ENOSPC) => {
            "the program is longer, or has more paths, than this kernel's verifier accepts; 'minimizer doctor' says what the \
             kernel lacks"
        }
        (Program | Native | Skb | Thread | Namespace | Interface | Netlink | PacketSocket, libc::ENOMEM) => {
            "the host, or a memory limit of its control group (MemoryMax= of the systemd unit), has too little memory for it"
        }
        (Map | FlowTable, libc::EINVAL) => {
            "this kernel does not know a map of this kind; it takes Linux 5.10 or later with CONFIG_BPF_SYSCALL; 'minimizer \
             doctor' says what the kernel lacks"
        }
        (Program, libc::EINVAL) => {
            "this kernel does not know a program of this kind; it takes Linux 5.10 or later with CONFIG_BPF_SYSCALL and \
             CONFIG_BPF_JIT; 'minimizer doctor' says what the kernel lacks"
        }
        (Native, libc::EOPNOTSUPP | ENOTSUPP) => {
            "its driver has no native XDP; '--mode skb' runs the program in the network stack, and 'minimizer doctor' says what \
             each interface can do"
        }
        (Skb, libc::EOPNOTSUPP | ENOTSUPP) => {
            "the network stack runs no XDP program on this kind of interface; watch the interface below it or above it; \
             'minimizer doctor' says what each interface can do"
        }
        (Native, libc::EINVAL | libc::ERANGE | libc::ENOSPC | libc::EMSGSIZE | libc::EFBIG) => {
            "the driver does not run XDP with the interface's present settings: its MTU may be too large, it may merge frames \
             (LRO), or it may lack queues; '--mode skb' takes any of them, and 'minimizer doctor' says what each interface can \
             do"
        }
        (Native | Skb, libc::ENODEV | libc::ENXIO) => "the interface has gone",
        (Native | Skb, libc::EBUSY | libc::EEXIST) => {
            "another XDP program is attached; 'minimizer doctor' says whose it is and how it is detached"
        }
        (Frame, libc::EINVAL) => "the kernel takes frames from 14 octets up to a page without its own data",
        (Netlink, libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
            "sockets of the family AF_NETLINK are kept from this process; add it to RestrictAddressFamilies= of the systemd unit"
        }
        (PacketSocket, libc::EAFNOSUPPORT | libc::EPROTONOSUPPORT) => {
            "this kernel was built without CONFIG_PACKET, or RestrictAddressFamilies= of the systemd unit lacks AF_PACKET"
        }
        (Interface, libc::EOPNOTSUPP) => {
            "this kernel lacks that kind of interface; 'modprobe veth' may load it (CONFIG_VETH)"
        }
        (Interface, libc::EEXIST) => "an interface of that name exists",
        (Namespace, libc::EINVAL | libc::ENOSYS) => "this kernel was built without CONFIG_NET_NS",
        (Namespace, libc::ENOSPC | libc::EUSERS) => {
            "there are as many network namespaces as there may be; raise the limit with 'sysctl -w user.max_net_namespaces='"
        }
        (Thread, libc::EAGAIN) => {
            "this user, or the control group, has as many threads as it may; raise RLIMIT_NPROC (LimitNPROC=) or TasksMax= of \
             the systemd unit"
        }
        (Listen, _) => "choose another address with '--listen'",
        _ => return None,
    };
    Some(text.to_owned())
}

/// Why something is not permitted: the first cause that is there.
fn not_permitted(asked: Asked, number: i32, surroundings: &Surroundings) -> String {
    let takes = match asked {
        Asked::Namespace => "CAP_SYS_ADMIN",
        Asked::PacketSocket | Asked::Send => "CAP_NET_RAW",
        Asked::Netlink | Asked::Interface => "CAP_NET_ADMIN",
        _ => "CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON",
    };
    if surroundings.user_namespace {
        return format!(
            "this process is in a user namespace (a rootless container, unshare -U), and it takes {takes} in the host's; leave \
             it"
        );
    }
    if matches!(asked, Asked::Map | Asked::FlowTable) && surroundings.charges_locked_memory {
        return format!(
            "this kernel charges maps to locked memory; raise RLIMIT_MEMLOCK ('ulimit -l unlimited', LimitMEMLOCK=infinity of \
             the systemd unit); it also takes {takes}"
        );
    }
    if asked == Asked::Program && number == libc::EACCES {
        return "this kernel's verifier does not accept the program; please report it with what 'minimizer doctor' says"
            .to_owned();
    }
    let mut text = format!("it takes {takes}: run as root, or grant them");
    if surroundings.seccomp {
        text += "; a seccomp filter is in force, which may keep the system call from this process: permit it in the profile of \
                 the container, or in SystemCallFilter= of the systemd unit";
    }
    if let Some(mode) = &surroundings.lockdown {
        text += &format!("; the kernel is locked down ({mode}), which may forbid it");
    }
    if number == libc::EACCES {
        text += "; a security module (SELinux, AppArmor, BPF LSM) may forbid it: its audit log says so";
    }
    text
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::{Asked, ENOTSUPP, Surroundings, hint, told, told_with_causes};

    #[test]
    fn each_request_has_the_fix_of_its_own() {
        let cases = [
            (Asked::FlowTable, libc::ENOMEM, "lower --flows"),
            (Asked::FlowTable, libc::EMFILE, "RLIMIT_NOFILE"),
            (Asked::Map, libc::EMFILE, "LimitNOFILE="),
            (Asked::Map, libc::ENFILE, "fs.file-max"),
            (Asked::Map, libc::EPERM, "CAP_BPF"),
            (Asked::Map, libc::EINVAL, "5.10"),
            (Asked::Map, libc::ENOSYS, "CONFIG_BPF_SYSCALL"),
            (Asked::Map, libc::ENOMEM, "MemoryMax="),
            (Asked::Memory, libc::ENOMEM, "RLIMIT_AS"),
            (Asked::Program, libc::E2BIG, "verifier"),
            (Asked::Program, libc::EACCES, "verifier"),
            (Asked::Program, libc::EPERM, "CAP_PERFMON"),
            (Asked::Native, libc::EOPNOTSUPP, "'--mode skb'"),
            (Asked::Native, ENOTSUPP, "'minimizer doctor'"),
            (Asked::Native, libc::ERANGE, "MTU"),
            (Asked::Native, libc::ENODEV, "has gone"),
            (Asked::Skb, libc::EOPNOTSUPP, "doctor"),
            (Asked::Netlink, libc::EAFNOSUPPORT, "RestrictAddressFamilies="),
            (Asked::Interface, libc::EPERM, "CAP_NET_ADMIN"),
            (Asked::Namespace, libc::EPERM, "CAP_SYS_ADMIN"),
            (Asked::Namespace, libc::ENOSPC, "user.max_net_namespaces"),
            (Asked::PacketSocket, libc::EPERM, "CAP_NET_RAW"),
            (Asked::Send, libc::EMSGSIZE, "length"),
            (Asked::Thread, libc::EAGAIN, "TasksMax="),
            (Asked::Listen, libc::EACCES, "CAP_NET_BIND_SERVICE"),
            (Asked::Listen, libc::EAFNOSUPPORT, "--listen"),
        ];
        for (asked, number, part) in cases {
            let hint = hint(asked, number, &Surroundings::default()).unwrap_or_default();
            assert!(hint.contains(part), "{asked:?} {number}: {hint}");
        }
        for number in [libc::EMFILE, libc::EPERM, libc::ENOSYS] {
            let hint = hint(Asked::FlowTable, number, &Surroundings::default()).unwrap_or_default();
            assert!(!hint.contains("lower --flows"), "only more memory makes a smaller table fit: {hint}");
        }
        assert!(
            !hint(Asked::Send, libc::EMSGSIZE, &Surroundings::default()).unwrap_or_default().contains("CAP_")
        );
        assert_eq!(hint(Asked::Map, libc::EIO, &Surroundings::default()), None);
    }

    #[test]
    fn what_surrounds_the_process_explains_what_is_not_permitted() {
        let plain = Surroundings::default();
        let cases = [
            (Surroundings { user_namespace: true, ..plain.clone() }, libc::EPERM, "user namespace"),
            (Surroundings { seccomp: true, ..plain.clone() }, libc::EPERM, "seccomp"),
            (Surroundings { seccomp: true, ..plain.clone() }, libc::ENOSYS, "seccomp"),
            (Surroundings { charges_locked_memory: true, ..plain.clone() }, libc::EPERM, "RLIMIT_MEMLOCK"),
            (
                Surroundings { lockdown: Some("integrity".to_owned()), ..plain.clone() },
                libc::EPERM,
                "locked down (integrity)",
            ),
            (plain.clone(), libc::EACCES, "SELinux"),
            (Surroundings { files_max: Some(9), ..plain }, libc::EMFILE, "may have 9 files open"),
        ];
        for (surroundings, number, part) in cases {
            let hint = hint(Asked::Map, number, &surroundings).unwrap_or_default();
            assert!(hint.contains(part), "{surroundings:?}: {hint}");
        }
    }

    #[derive(Debug, Error)]
    #[error("outer: {0}")]
    struct Outer(#[source] Inner);

    #[derive(Debug, Error)]
    #[error("failed to create map `X`")]
    struct Inner(#[source] io::Error);

    #[derive(Debug, Error)]
    #[error("the call returned {0}. More: none")]
    struct Quoting(#[source] io::Error);

    #[test]
    fn the_kernels_error_is_named_once_behind_what_failed() {
        let error = |number| io::Error::from_raw_os_error(number);
        assert_eq!(told(Asked::Map, &error(libc::EIO)), "Input/output error (EIO)");
        assert_eq!(told(Asked::Map, &error(4095)), "Unknown error 4095 (errno 4095)");
        let said = told(Asked::Native, &error(ENOTSUPP));
        assert!(said.starts_with("Operation not supported (ENOTSUPP): "), "{said}");
        assert_eq!(told(Asked::Map, &io::Error::other("none")), "none");
        let said = told_with_causes(Asked::Map, &Outer(Inner(error(libc::EIO))));
        assert_eq!(said, "outer: failed to create map `X`: Input/output error (EIO)");
        let said = told_with_causes(Asked::Native, &Quoting(error(libc::ENODEV)));
        assert_eq!(said, "the call returned No such device (ENODEV). More: none: the interface has gone");
    }
}
