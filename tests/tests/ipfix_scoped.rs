//! Collectors at link-local addresses, which mean something on one interface only.

use std::net::{TcpListener, UdpSocket};
use std::thread;

use anyhow::{Context as _, Result};
use minimizer::delivery::sink::Taken;
use nix::sched::{CloneFlags, unshare};
use tests::authority::Authority;
use tests::ipfix::decoded::{Decoded, all_expected};
use tests::ipfix::sinks::configured;
use tests::ipfix::streams::{accept, read_tls, read_to_end};
use tests::ipfix::{ALL_FIELDS, Offer, one_of_each};
use tests::veth::ip;

const ADDRESS: &str = "fe80::1";

/// A network of the calling thread in which one interface has a link-local address; returns its number.
fn network() -> Result<u32> {
    unshare(CloneFlags::CLONE_NEWNET)?;
    // Its number is not that of the loopback interface.
    ip("link add link0 type veth peer name link1")?;
    ip("link set dev lo up")?;
    ip("link set dev link0 up")?;
    ip("link set dev link1 up")?;
    ip(&format!("address add {ADDRESS}/64 dev link0 nodad"))?;
    let listed = ip("-o link show dev link0")?;
    Ok(listed.split(':').next().context("a number")?.parse()?)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root, for a network of its own: cargo xtask test")]
fn a_collector_is_reached_through_the_interface_in_its_address() -> Result<()> {
    let number = network()?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("ours")?;
    authority.write_own(folder.path(), "ca")?;
    authority.write(folder.path(), "agent", "agent.example")?;
    let server = authority.server("collector.example", &authority)?;
    let records = one_of_each();
    for scope in ["link0".to_owned(), number.to_string()] {
        let socket = UdpSocket::bind(format!("[{ADDRESS}%{number}]:0"))?;
        socket.set_nonblocking(true)?;
        let collector = |port: u16| format!("collector = \"[{ADDRESS}%{scope}]:{port}\"\n");
        let mut sink =
            configured(&collector(socket.local_addr()?.port()), folder.path()).map_err(anyhow::Error::msg)?;
        let mut offer = Offer::exact(&ALL_FIELDS)?;
        offer.bring(sink.as_mut(), &records)?;
        let mut decoded = Decoded::default();
        let mut room = vec![0; 65_536];
        while let Ok(length) = socket.recv(&mut room) {
            decoded.message(&room[..length])?;
        }
        assert_eq!(decoded.sorted_flows(), all_expected(&records, offer.fields()), "UDP, {scope}");

        let tls = "transport = \"tls\"\ntls = { ca = \"ca.pem\", server_name = \"collector.example\", certificate = \
                   \"agent.pem\", key = \"agent.key\" }";
        for transport in ["transport = \"tcp\"", tls] {
            let listener = TcpListener::bind(format!("[{ADDRESS}%{number}]:0"))?;
            let text = collector(listener.local_addr()?.port()) + transport;
            let mut sink = configured(&text, folder.path()).map_err(anyhow::Error::msg)?;
            let mut offer = Offer::exact(&ALL_FIELDS)?;
            let octets = thread::scope(|scope| -> Result<_> {
                let reading = scope.spawn(|| match transport == tls {
                    true => read_tls(accept(&listener)?, server.clone()),
                    false => read_to_end(&mut accept(&listener)?),
                });
                offer.bring(sink.as_mut(), &records)?;
                assert_eq!(sink.close()?, Taken::Delivered);
                drop(sink);
                reading.join().expect("it does not panic")
            })?;
            let mut decoded = Decoded::default();
            decoded.stream(&octets)?;
            assert_eq!(
                decoded.sorted_flows(),
                all_expected(&records, offer.fields()),
                "{transport}, {scope}"
            );
        }
    }
    Ok(())
}

#[test]
fn an_interface_that_is_not_there_is_named() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let text = "collector = \"[fe80::1%absent0]:4739\"";
    let mut sink = configured(text, folder.path()).map_err(anyhow::Error::msg)?;
    let offer = Offer::exact(&ALL_FIELDS)?;
    let error = offer.try_to_bring(sink.as_mut(), &one_of_each(), &mut 0).err().context("is refused")?;
    assert!(error.to_string().contains("there is no interface 'absent0'"), "{error}");
    assert!(configured("collector = \"[fe80::1%eth0]:0\"", folder.path()).is_err(), "port 0");
    Ok(())
}
