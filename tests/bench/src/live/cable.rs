//! A virtual cable between two network namespaces, and the sender at one end of it.

use std::fs::{self, File};
use std::os::fd::AsRawFd as _;
use std::process::{self, Command};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use aya::programs::ProgramFd;
use aya::{Ebpf, EbpfLoader};
use minimizer::commands::demo::network::enter_private_namespace;
use minimizer::interfaces::netlink::Netlink;
use nix::sched::{CloneFlags, setns};
use tests::veth::ip;

use crate::contenders::{object, xdp};
use crate::schedule::Schedule;
use crate::traffic::Traffic;
use crate::wrapper::Wrapper;

/// The receiving end.
pub const RECEIVER: &str = "receive0";
const SENDER: &str = "send0";
/// How long nothing may arrive before the cable is taken to be empty.
const QUIET: Duration = Duration::from_millis(5);

/// The cable. Both namespaces, and what is in them, end with the thread and this.
pub struct Cable {
    sender_namespace: File,
    receiver_namespace: File,
    netlink: Netlink,
    sender_index: u32,
    /// Index of the receiving end.
    pub receiver_index: u32,
}

impl Cable {
    /// Lays the cable and leaves the calling thread in the sender's namespace.
    ///
    /// # Errors
    /// What the kernel, `ip` or `ethtool` answers.
    pub fn lay() -> anyhow::Result<Self> {
        enter_private_namespace()?;
        let receiver_namespace = own_namespace()?;
        let mut netlink = Netlink::open()?;
        enter_private_namespace()?;
        let sender_namespace = own_namespace()?;
        let into = format!("/proc/{}/fd/{}", process::id(), receiver_namespace.as_raw_fd());
        ip(&format!("link add {SENDER} type veth peer name {RECEIVER}"))?;
        ip(&format!("link set dev {RECEIVER} netns {into}"))?;
        for interface in ["lo", SENDER] {
            ip(&format!("link set dev {interface} up"))?;
        }
        let sender_index = Netlink::open()?.link(SENDER)?.index;
        let receiver_index = netlink.link(RECEIVER)?.index;
        let cable = Self { sender_namespace, receiver_namespace, netlink, sender_index, receiver_index };
        cable.at_receiver(|| {
            ip("link set dev lo up")?;
            ip(&format!("link set dev {RECEIVER} up"))?;
            // Without a program and without this, a veth takes no frames from another program.
            let ethtool = Command::new("ethtool").args(["-K", RECEIVER, "gro", "on"]).output();
            let output = ethtool.context("ethtool is not installed")?;
            ensure!(output.status.success(), "ethtool: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        })?;
        Ok(cable)
    }

    /// Does something in the receiver's namespace.
    ///
    /// # Errors
    /// Those of `work`; the kernel's.
    pub fn at_receiver<T>(&self, work: impl FnOnce() -> anyhow::Result<T>) -> anyhow::Result<T> {
        setns(&self.receiver_namespace, CloneFlags::CLONE_NEWNET)?;
        let result = work();
        setns(&self.sender_namespace, CloneFlags::CLONE_NEWNET)?;
        result
    }

    /// Frames that the receiving end took out of the cable, whatever became of them.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn received(&mut self) -> anyhow::Result<u64> {
        Ok(self.netlink.link(RECEIVER)?.counters.received_packets)
    }

    /// The same once no more come, and when the last came.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn settled(&mut self) -> anyhow::Result<(u64, Instant)> {
        let mut latest = (self.received()?, Instant::now());
        while latest.1.elapsed() < QUIET {
            let received = self.received()?;
            if received != latest.0 {
                latest = (received, Instant::now());
            }
        }
        Ok(latest)
    }
}

fn own_namespace() -> anyhow::Result<File> {
    Ok(fs::File::open("/proc/thread-self/ns/net")?)
}

/// Sends live frames of many flows into the cable, in the kernel.
pub struct Sender {
    wrapper: Wrapper,
    _object: Ebpf,
    id: u32,
    redirect: ProgramFd,
}

impl Sender {
    /// A sender of `flows` flows.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn new(cable: &Cable, traffic: Traffic, schedule: &Schedule) -> anyhow::Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("SCHEDULE", 1)
            .override_global("IF_INDEX", &cable.sender_index, true)
            .load(object()?)?;
        let program = xdp(&mut ebpf, "redirect")?;
        program.load()?;
        let (id, redirect) = (program.info()?.id(), program.fd()?.try_clone()?);
        Ok(Self { wrapper: Wrapper::load(traffic, schedule)?, _object: ebpf, id, redirect })
    }

    /// Sends frames as fast as the other end lets it.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn send(&mut self, packets: u32) -> anyhow::Result<()> {
        self.wrapper.send_live(self.id, &self.redirect, packets)
    }
}
