//! Virtual cables between two network namespaces, and the sender at one end of them.

use std::fs::File;
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

use crate::beside::own_namespace;
use crate::contenders::{object, xdp};

/// How long nothing may arrive before a cable is taken to be empty.
const QUIET: Duration = Duration::from_millis(5);

/// The namespaces of all cables. They, and what is in them, end with the thread and this.
pub struct Cables {
    sender_namespace: File,
    receiver_namespace: File,
    netlink: Netlink,
    laid: usize,
}

/// One cable, and the program that sends frames into it.
pub struct Cable {
    /// Name of the receiving end.
    pub receiver: String,
    /// Its index.
    pub receiver_index: u32,
    /// Sends frames into it.
    pub redirect: Redirect,
}

impl Cables {
    /// Makes the namespaces and leaves the calling thread in the sender's.
    ///
    /// # Errors
    /// What the kernel or `ip` answers.
    pub fn new() -> anyhow::Result<Self> {
        enter_private_namespace()?;
        let receiver_namespace = own_namespace()?;
        let netlink = Netlink::open()?;
        ip("link set dev lo up")?;
        enter_private_namespace()?;
        let sender_namespace = own_namespace()?;
        ip("link set dev lo up")?;
        Ok(Self { sender_namespace, receiver_namespace, netlink, laid: 0 })
    }

    /// Lays a cable.
    ///
    /// # Errors
    /// What the kernel, `ip` or `ethtool` answers.
    pub fn lay(&mut self) -> anyhow::Result<Cable> {
        let (sender, receiver) = (format!("send{}", self.laid), format!("receive{}", self.laid));
        self.laid += 1;
        let into = format!("/proc/{}/fd/{}", process::id(), self.receiver_namespace.as_raw_fd());
        ip(&format!("link add {sender} type veth peer name {receiver}"))?;
        ip(&format!("link set dev {receiver} netns {into}"))?;
        ip(&format!("link set dev {sender} up"))?;
        self.at_receiver(|| {
            ip(&format!("link set dev {receiver} up"))?;
            // Without a program and without this, a veth takes no frames from another program.
            let ethtool = Command::new("ethtool").args(["-K", &receiver, "gro", "on"]).output();
            let output = ethtool.context("ethtool is not installed")?;
            ensure!(output.status.success(), "ethtool: {}", String::from_utf8_lossy(&output.stderr));
            Ok(())
        })?;
        let redirect = Redirect::into(Netlink::open()?.link(&sender)?.index)?;
        let receiver_index = self.netlink.link(&receiver)?.index;
        Ok(Cable { receiver, receiver_index, redirect })
    }

    /// Does something in the receivers' namespace.
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
    pub fn received(&mut self, cable: &Cable) -> anyhow::Result<u64> {
        Ok(self.netlink.link(&cable.receiver)?.counters.received_packets)
    }

    /// The same once no more come, and when the last came.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn settled(&mut self, cable: &Cable) -> anyhow::Result<(u64, Instant)> {
        let mut latest = (self.received(cable)?, Instant::now());
        while latest.1.elapsed() < QUIET {
            let received = self.received(cable)?;
            if received != latest.0 {
                latest = (received, Instant::now());
            }
        }
        Ok(latest)
    }
}

/// A program that sends every frame into one interface. The wrapper calls it.
pub struct Redirect {
    /// Its number.
    pub id: u32,
    /// The program.
    pub program: ProgramFd,
    _object: Ebpf,
}

impl Redirect {
    /// Into the interface of this index, in the namespace of the calling thread.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn into(if_index: u32) -> anyhow::Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .map_max_entries("SCHEDULE", 1)
            .override_global("IF_INDEX", &if_index, true)
            .load(object()?)?;
        let program = xdp(&mut ebpf, "redirect")?;
        program.load()?;
        let (id, redirect) = (program.info()?.id(), program.fd()?.try_clone()?);
        Ok(Self { id, program: redirect, _object: ebpf })
    }
}
