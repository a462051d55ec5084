//! Checks of the kernel and of this process.

use std::fs;

use aya::util::KernelVersion;
use minimizer_common::generation::Shape;
use procfs::ProcResult;
use procfs::process::{LimitValue, Process};

use super::Check;
use crate::kernel::features::Kernel;
use crate::kernel::table_size::{self, AGENT_BYTES};
use crate::support::cpus;
use crate::support::privilege::{self, PrivilegeError, Task};

const HOST: &str = "host";
/// Oldest kernel on which the program loads.
const KERNEL_MIN: KernelVersion = KernelVersion::new(5, 10, 0);
/// First kernel that charges BPF memory to the control group instead of RLIMIT_MEMLOCK.
const KERNEL_CGROUP_CHARGE: KernelVersion = KernelVersion::new(5, 11, 0);
/// Flows per CPU for which memory is judged: the default of `run`.
const FLOWS_PER_CPU: u32 = 65_536;

/// All checks of the host.
pub fn checks() -> Vec<Check> {
    let kernel = KernelVersion::current().ok();
    let cpus = Cpus::read();
    vec![
        kernel_version(kernel),
        multi_buffer(Kernel::detect()),
        type_information(),
        jit(fs::read_to_string("/proc/sys/net/core/bpf_jit_enable").ok().as_deref()),
        capabilities(),
        cpu_check(&cpus),
        memory(kernel, &cpus),
        file_system(),
    ]
}

fn kernel_version(kernel: Option<KernelVersion>) -> Check {
    let check = "kernel";
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let evidence = format!("Linux {}", release.trim());
    let fix = "run Linux 5.18 or later";
    match kernel {
        None => Check::fail(HOST, check, "no Linux kernel that tells its version", fix),
        Some(version) if version < KERNEL_MIN => {
            Check::fail(HOST, check, evidence + ": the program needs 5.10", fix)
        }
        Some(_) => Check::pass(HOST, check, evidence),
    }
}

fn multi_buffer(kernel: Kernel) -> Check {
    let check = "multi-buffer xdp";
    if kernel.multi_buffer {
        return Check::pass(HOST, check, "frames in several buffers are counted by their whole length");
    }
    let evidence = "the kernel has none: the program takes frames in one buffer, \
                    and interfaces with jumbo frames do not take the program";
    Check::warn(HOST, check, evidence, "run Linux 5.18 or later")
}

fn type_information() -> Check {
    let (check, path) = ("btf", "/sys/kernel/btf/vmlinux");
    match fs::metadata(path) {
        Ok(file) => Check::pass(HOST, check, format!("{path}, {} KiB", file.len() >> 10)),
        Err(error) => Check::warn(
            HOST,
            check,
            format!("{path}: {error}; the program loads without it, but tools show less of it"),
            "run a kernel built with CONFIG_DEBUG_INFO_BTF=y",
        ),
    }
}

/// `setting` is the content of `bpf_jit_enable`.
fn jit(setting: Option<&str>) -> Check {
    let check = "jit";
    let name = "net.core.bpf_jit_enable";
    let fix = format!("sysctl -w {name}=1");
    match setting.map(str::trim) {
        Some("1") => Check::pass(HOST, check, format!("{name} = 1")),
        Some("2") => {
            let evidence = format!("{name} = 2: compiled programs are written to the kernel log");
            Check::warn(HOST, check, evidence, fix)
        }
        Some(value) => {
            let evidence = format!("{name} = {value}: programs are interpreted, many times slower");
            Check::warn(HOST, check, evidence, fix)
        }
        None => {
            let evidence = format!("{name} cannot be read: only the host's network namespace has it");
            Check::warn(HOST, check, evidence, "run doctor in the host's network namespace")
        }
    }
}

fn capabilities() -> Check {
    let check = "capabilities";
    match privilege::check(Task::Run) {
        Ok(()) => Check::pass(HOST, check, "CAP_BPF, CAP_NET_ADMIN, CAP_PERFMON"),
        Err(PrivilegeError::Missing(missing)) => Check::fail(HOST, check, missing.evidence(), missing.fix()),
        Err(error @ PrivilegeError::Unknown(_)) => {
            Check::warn(HOST, check, error.to_string(), "mount /proc in this container")
        }
    }
}

/// CPU numbers that could ever be used, and CPUs that are online.
struct Cpus {
    possible: Option<u32>,
    online: Option<u32>,
}

impl Cpus {
    fn read() -> Self {
        Self { possible: cpus::numbers().ok(), online: cpus::online().ok() }
    }

    /// Memory of the tables at the default size.
    fn table_bytes(&self) -> Option<u64> {
        Some(table_size::bytes(&Shape::for_flows(self.possible?, FLOWS_PER_CPU)?))
    }
}

fn cpu_check(cpus: &Cpus) -> Check {
    let check = "cpus";
    let (Some(possible), Some(online)) = (cpus.possible, cpus.online) else {
        let evidence = "/sys/devices/system/cpu/possible or online cannot be read";
        return Check::fail(HOST, check, evidence, "mount sysfs at /sys");
    };
    let table_mib = cpus.table_bytes().unwrap_or(0) >> 20;
    let tables = format!("tables take {table_mib} MiB at {FLOWS_PER_CPU} flows per CPU");
    let evidence = format!("{possible} possible, {online} online: {tables}");
    if possible >= online.saturating_mul(2) {
        let evidence = evidence + ", most of it for CPUs that are not there";
        let fix =
            format!("lower '--flows-per-cpu', or boot with the kernel parameter possible_cpus={online}");
        return Check::warn(HOST, check, evidence, fix);
    }
    Check::pass(HOST, check, evidence)
}

fn memory(kernel: Option<KernelVersion>, cpus: &Cpus) -> Check {
    let check = "memory";
    let need = cpus.table_bytes().unwrap_or(0) + AGENT_BYTES;
    let needs = format!("the agent needs {} MiB", need >> 20);
    if kernel.is_none_or(|kernel| kernel >= KERNEL_CGROUP_CHARGE) {
        return match cgroup_limit() {
            Some((path, limit)) => {
                let evidence = format!("{path} allows {} MiB, {needs}", limit >> 20);
                if limit >= need {
                    return Check::pass(HOST, check, evidence);
                }
                Check::fail(
                    HOST,
                    check,
                    evidence,
                    "raise it (systemd: MemoryMax=) or lower '--flows-per-cpu'",
                )
            }
            None => Check::pass(HOST, check, format!("no control group limits it, {needs}")),
        };
    }
    match locked_memory_limit() {
        Ok(LimitValue::Value(limit)) if limit < need => Check::warn(
            HOST,
            check,
            format!("RLIMIT_MEMLOCK is {} KiB, {needs}; it tries to raise the limit", limit >> 10),
            "ulimit -l unlimited (systemd: LimitMEMLOCK=infinity)",
        ),
        Ok(_) => Check::pass(HOST, check, format!("RLIMIT_MEMLOCK is high enough, {needs}")),
        Err(error) => Check::warn(HOST, check, format!("RLIMIT_MEMLOCK is unknown: {error}"), "mount /proc"),
    }
}

fn locked_memory_limit() -> ProcResult<LimitValue> {
    Ok(Process::myself()?.limits()?.max_locked_memory.soft_limit)
}

/// The smallest memory limit of the control groups that this process is in, and where it is set.
fn cgroup_limit() -> Option<(String, u64)> {
    let groups = Process::myself().ok()?.cgroups().ok()?;
    let group = groups.into_iter().find(|group| group.hierarchy == 0)?;
    let mut limits = Vec::new();
    let mut path = group.pathname.as_str();
    while !path.is_empty() && path != "/" {
        let file = format!("/sys/fs/cgroup{path}/memory.max");
        let limit = fs::read_to_string(&file).ok().and_then(|limit| limit.trim().parse::<u64>().ok());
        limits.extend(limit.map(|limit| (file, limit)));
        path = path.rsplit_once('/').map_or("", |(parent, _)| parent);
    }
    limits.into_iter().min_by_key(|(_, limit)| *limit)
}

/// The agent pins nothing; other tools do.
fn file_system() -> Check {
    let check = "bpffs";
    let mounts = match Process::myself().and_then(|process| process.mountinfo()) {
        Ok(mounts) => mounts,
        Err(error) => {
            return Check::warn(HOST, check, format!("mounts are unknown: {error}"), "mount /proc");
        }
    };
    match mounts.into_iter().find(|mount| mount.fs_type == "bpf") {
        Some(mount) => Check::pass(HOST, check, mount.mount_point.display().to_string()),
        None => Check::warn(
            HOST,
            check,
            "not mounted; the agent does not need it, tools that pin do",
            "mount -t bpf bpf /sys/fs/bpf",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::super::Verdict;
    use super::{Cpus, Kernel, KernelVersion, cpu_check, jit, kernel_version, multi_buffer};

    #[test]
    fn kernels_are_judged_by_what_they_lack() {
        let cases = [
            (Some(KernelVersion::new(5, 9, 16)), Verdict::Fail),
            (Some(KernelVersion::new(5, 10, 0)), Verdict::Pass),
            (Some(KernelVersion::new(6, 18, 44)), Verdict::Pass),
            (None, Verdict::Fail),
        ];
        for (version, verdict) in cases {
            let check = kernel_version(version);
            assert_eq!(
                (check.verdict, check.fix.is_some()),
                (verdict, verdict != Verdict::Pass),
                "{version:?}"
            );
        }
    }

    #[test]
    fn frames_in_one_buffer_only_are_a_drawback() {
        for (has, verdict) in [(true, Verdict::Pass), (false, Verdict::Warn)] {
            assert_eq!(multi_buffer(Kernel { multi_buffer: has, large_values: has }).verdict, verdict);
        }
    }

    #[test]
    fn only_the_quiet_compiler_passes() {
        for (setting, verdict) in [
            (Some("1\n"), Verdict::Pass),
            (Some("0\n"), Verdict::Warn),
            (Some("2\n"), Verdict::Warn),
            (None, Verdict::Warn),
        ] {
            assert_eq!(jit(setting).verdict, verdict, "{setting:?}");
        }
    }

    #[test]
    fn memory_for_cpus_that_are_not_there_is_a_drawback() {
        let verdict = |possible, online| cpu_check(&Cpus { possible, online }).verdict;
        assert_eq!(verdict(Some(2), Some(2)), Verdict::Pass);
        assert_eq!(verdict(Some(128), Some(2)), Verdict::Warn);
        assert_eq!(verdict(None, Some(2)), Verdict::Fail);
    }
}
