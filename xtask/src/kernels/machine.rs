//! One run of an emulated machine: its console, and how the run ended.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::images::Image;
use crate::command;
use crate::report::Tally;

const EMULATOR: &str = "qemu-system-x86_64";
/// A machine that takes longer hangs. A run takes two minutes on an idle host.
const LIMIT: Duration = Duration::from_secs(600);
/// Software emulation, which runs everywhere. The emulated CPUs take turns: kernels 5.10 and 6.12 panic in
/// self-modifying code if each CPU has a thread of the emulator. The CPU has no 16-octet exchange: with it,
/// QEMU 7.2 breaks every third boot of 6.12, somewhere behind an allocation.
const MACHINE: &[&str] =
    &["-M", "q35", "-accel", "tcg,thread=single", "-cpu", "max,-cx16", "-smp", "2", "-m", "768"];
/// Network cards at one hub, by the last octet of their addresses: one that frames are sent on, and those that they
/// arrive on. None can start a machine.
const CARDS: [(u8, &str); 4] = [
    (1, "virtio-net-pci"),
    (2, "vmxnet3"),
    // Buffers for one frame each.
    (3, "virtio-net-pci,mrg_rxbuf=off"),
    // Buffers of several pages each, because of the largest packet that the host lets through.
    (4, "virtio-net-pci,mrg_rxbuf=off,host_mtu=1600"),
];
/// No screen, no devices, the first serial line as standard output, and no second boot.
const DEVICES: &[&str] = &["-display", "none", "-nodefaults", "-no-reboot", "-serial", "stdio"];
const COMMAND_LINE: &str = "console=ttyS0 panic=-1 quiet";

/// Runs a machine to its end, or to [`LIMIT`], and returns its console, which goes to a file too. Each line is shown
/// with the kernel's release, because other machines may run at the same time. With `checks`, the guest runs only those
/// whose names begin with it.
pub fn run(image: &Image, initramfs: &Path, checks: Option<&str>) -> Result<String> {
    // What the kernel does not know goes to the first process, as a variable of its environment.
    let command_line = checks.map(|checks| format!("{COMMAND_LINE} checks=\"{checks}\""));
    let command_line = command_line.as_deref().unwrap_or(COMMAND_LINE);
    let mut emulator = Command::new(EMULATOR);
    emulator.args(MACHINE).arg("-kernel").arg(&image.kernel).arg("-initrd").arg(initramfs);
    emulator.args(["-append", command_line]).args(DEVICES);
    for (number, card) in CARDS {
        emulator.args(["-netdev", &format!("hubport,id=port{number},hubid=1")]);
        emulator
            .args(["-device", &format!("{card},netdev=port{number},mac=52:54:00:00:00:0{number},romfile=")]);
    }
    command::announce(&emulator);
    let emulator = emulator.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let emulator = emulator.with_context(|| format!("cannot start {EMULATOR}"))?;
    let name = image.release.split('-').next().unwrap_or(&image.release);
    let console = follow(emulator, name)?;
    File::create(image.folder.join("console.log"))?.write_all(console.as_bytes())?;
    Ok(console)
}

/// Shows the guest's lines as they arrive.
fn follow(mut emulator: Child, name: &str) -> Result<String> {
    let output = BufReader::new(emulator.stdout.take().context("the console is no pipe")?);
    let (sender, lines) = mpsc::channel();
    let reader = thread::spawn(move || {
        for line in output.split(b'\n').map_while(Result::ok) {
            if sender.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
                break;
            }
        }
    });
    let end = Instant::now() + LIMIT;
    let mut console = String::new();
    let timeout = loop {
        match lines.recv_timeout(end.saturating_duration_since(Instant::now())) {
            Ok(line) => {
                println!("  {name:<9} {line}");
                console += &line;
                console.push('\n');
            }
            Err(RecvTimeoutError::Disconnected) => break false,
            Err(RecvTimeoutError::Timeout) => break true,
        }
    };
    if timeout {
        emulator.kill()?;
        console += &format!("the machine was still running after {} s\n", LIMIT.as_secs());
    }
    emulator.wait()?;
    drop(lines);
    reader.join().ok().context("the reader of the console panicked")?;
    Ok(console)
}

/// Counts the checks that a console reports. Fails if the kernel complained, or if the guest did not reach
/// its last line.
pub fn judge(console: &str) -> Result<Tally> {
    if let Some(line) = console.lines().find(|line| is_complaint(line)) {
        bail!("the kernel is not well: {line}");
    }
    let conclusion = console.lines().find_map(|line| line.strip_prefix("guest: "));
    let Some(conclusion) = conclusion else {
        bail!("the guest did not finish: {}", console.lines().last().unwrap_or("nothing on the console"));
    };
    let count = |word: &str| {
        conclusion.split(", ").find_map(|count| count.strip_suffix(word)?.trim().parse::<u64>().ok())
    };
    let passed = count("passed").context("the guest's last line cannot be read")?;
    let failed = count("failed").context("the guest's last line cannot be read")?;
    Ok(Tally { passed, failed, skipped: 0 })
}

/// Whether a kernel prints such a line when it fails. The guest's own report does not matter then.
fn is_complaint(line: &str) -> bool {
    ["Oops", "panic", "soft lockup", "BUG:"].iter().any(|word| line.contains(word))
        || line.split_once("rcu").is_some_and(|(_, rest)| rest.contains("stall"))
}

#[cfg(test)]
mod tests {
    use super::judge;
    use crate::report::Tally;

    #[test]
    fn only_a_finished_guest_on_a_quiet_kernel_passes() {
        let finished = "kernel 6.1\npassed doctor: warns of nothing\nguest: 9 passed, 1 failed\n";
        assert_eq!(judge(finished).expect("it finished"), Tally { passed: 9, failed: 1, skipped: 0 });
        assert!(judge("kernel 6.1\npassed doctor: warns of nothing\n").is_err());
        for complaint in [
            "Kernel panic - not syncing",
            "watchdog: BUG: soft lockup - CPU#0 stuck",
            "rcu: INFO: rcu_preempt self-detected stall on CPU",
        ] {
            assert!(judge(&format!("{complaint}\n{finished}")).is_err(), "{complaint}");
        }
    }
}
