//! Networks for tests: a private namespace with virtual cables, senders, and the driver's counters.

use std::io;
use std::sync::Arc;
use std::thread;

use anyhow::Result;
use minimizer::commands::demo::generator::Traffic;
use minimizer::commands::demo::network::{Cable, enter_private_namespace};
use minimizer::commands::demo::sender::{FrameSender, Handed};
use minimizer::interfaces::netlink::{LinkCounters, Netlink};

/// A private namespace in which the calling thread, and threads and processes that it starts, live.
pub struct Network {
    netlink: Netlink,
    cables: Vec<Cable>,
}

impl Network {
    /// Moves the calling thread to a new namespace with `cables` virtual cables in it, named
    /// `send0` to `receive0` and so on.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn new(cables: usize, mtu_octets: u32) -> Result<Self> {
        enter_private_namespace()?;
        let mut netlink = Netlink::open()?;
        // Agents under test serve on the loopback interface.
        let loopback = netlink.link("lo")?;
        netlink.set_up(loopback.index, true)?;
        let cables = (0..cables)
            .map(|number| {
                Cable::lay(&mut netlink, &format!("send{number}"), &format!("receive{number}"), mtu_octets)
            })
            .collect::<Result<_, _>>()?;
        Ok(Self { netlink, cables })
    }

    /// Lays one more cable, with this name of its receiving end; the other is called `s-` and the same.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn lay(&mut self, receiver: &str) -> Result<usize> {
        self.cables.push(Cable::lay(&mut self.netlink, &format!("s-{receiver}"), receiver, 1500)?);
        Ok(self.cables.len() - 1)
    }

    /// Sends `frames` into a cable and returns how many the receiving end took.
    ///
    /// # Errors
    /// When sending fails, or frames stay in the cable.
    pub fn send_all(&mut self, cable: usize, traffic: &Arc<Traffic>, frames: u64) -> Result<u64> {
        let sender = self.send(cable, traffic, Some(frames))?;
        while !sender.is_finished() {
            thread::yield_now();
        }
        self.settle(cable, sender.finish()?)
    }

    /// The cables.
    #[must_use]
    pub fn cables(&self) -> &[Cable] {
        &self.cables
    }

    /// Starts sending into a cable.
    ///
    /// # Errors
    /// No socket or no thread can be had.
    pub fn send(&self, cable: usize, traffic: &Arc<Traffic>, frames: Option<u64>) -> io::Result<FrameSender> {
        FrameSender::start(Arc::clone(traffic), self.cables[cable].sender.index, frames)
    }

    /// Whether an XDP program is attached to the receiving end of a cable.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn is_attached(&mut self, cable: usize) -> Result<bool> {
        Ok(!self.netlink.link(&self.cables[cable].receiver.name)?.xdp.is_empty())
    }

    /// What the driver counted at the sending end of a cable.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn counters(&mut self, cable: usize) -> Result<LinkCounters> {
        Ok(self.netlink.link(&self.cables[cable].sender.name)?.counters)
    }

    /// Waits until the receiving end has taken every frame out of the cable that was `handed` to it,
    /// and returns how many those are by the driver's counters.
    ///
    /// # Errors
    /// When frames stay in the cable.
    pub fn settle(&mut self, cable: usize, handed: Handed) -> Result<u64> {
        Ok(self.cables[cable].settle(&mut self.netlink, handed)?)
    }
}
