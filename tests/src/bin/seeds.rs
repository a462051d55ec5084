//! Writes generated frames as inputs for the fuzzers into a folder.

use std::env;
use std::fs;
use std::path::PathBuf;

use anyhow::Context as _;
use minimizer_common::tunnel::Tunnels;
use tests::fuzz::input;
use tests::packets::Generator;

const SEEDS: usize = 2000;

fn main() -> anyhow::Result<()> {
    let folder = PathBuf::from(env::args_os().nth(1).context("usage: seeds FOLDER")?);
    fs::create_dir_all(&folder)?;
    let mut generator = Generator::new(61);
    for index in 0..SEEDS {
        let tunnels = if index % 2 == 0 { Tunnels::ALL } else { Tunnels::NONE };
        let octets = input(tunnels, &generator.packet().octets);
        fs::write(folder.join(format!("generated-{index:04}")), octets)?;
    }
    Ok(())
}
