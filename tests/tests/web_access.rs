//! Who keeps the running agent's web server from those who may ask: floods of connections and passwords, names of others,
//! secrets that others read.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use tests::authority::Authority;
use tests::command::{Agent, get, minimizer};
use tests::veth::{RECEIVER, Veth};

/// Where passwords are asked for, and where not. Each test has its own network.
const GUARDED: &str = "127.0.0.1:9443";
const PLAIN: &str = "127.0.0.1:9080";
/// Longest wait for what must come; beyond, something is stuck.
const LIMIT: Duration = Duration::from_secs(60);
/// Paces questions; nothing depends on it.
const PACE: Duration = Duration::from_millis(20);

fn start(options: &[&str]) -> Result<Agent> {
    let mut command = Command::new(minimizer());
    command.args(["run", "--interval", "500ms", "--flows-per-cpu", "1024", "--output", "json"]);
    Agent::start(command.args(["-i", RECEIVER]).args(options))
}

fn refusals(reason: &str) -> Result<u64> {
    let text = get(&format!("http://{PLAIN}/metrics"), "")?.2;
    let name = format!("minimizer_web_refusals_total{{reason=\"{reason}\"}} ");
    let value = text.lines().find_map(|line| line.strip_prefix(&name));
    value.with_context(|| format!("{name} is missing in {text}"))?.parse().context("a number")
}

/// The status of an answer, or what curl says when there is none.
fn curl(url: &str, from: &str, options: &[&str]) -> Result<String> {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--show-error", "--noproxy", "*", "--output", "/dev/null"]);
    let output =
        curl.args(["--write-out", "%{http_code}", "--interface", from]).args(options).arg(url).output();
    let output = output.context("curl is a package of Debian")?;
    Ok(String::from_utf8_lossy(&[&output.stdout[..], &output.stderr].concat()).into_owned())
}

/// What is answered to the octets of a request.
fn answer(address: SocketAddr, request: &str) -> Result<String> {
    let mut client = TcpStream::connect(address)?;
    client.set_read_timeout(Some(LIMIT))?;
    client.write_all(request.as_bytes())?;
    let mut answer = String::new();
    client.read_to_string(&mut answer)?;
    Ok(answer)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn clients_that_only_connect_keep_no_scraper_out() -> Result<()> {
    let _veth = Veth::new()?;
    let agent = start(&["--listen", PLAIN])?;
    let said = ["", "GET /metr", "GET /-/healthy HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n"];
    let mut idle = Vec::new();
    for said in said.iter().cycle().take(640) {
        let mut client = TcpStream::connect(agent.address())?;
        // One that was cut already takes nothing.
        client.write_all(said.as_bytes()).ok();
        idle.push(client);
    }
    for from in ["127.0.0.1", "127.0.0.2"] {
        let mut others = Vec::new();
        for path in ["/metrics", "/-/healthy"].iter().cycle().take(50) {
            let status = curl(&format!("http://{PLAIN}{path}"), from, &["--max-time", "2"])?;
            if status != "200" {
                others.push(status);
            }
        }
        ensure!(others.is_empty(), "{} of 50 scrapes from {from}: {others:?}", others.len());
    }
    let displaced = refusals("displaced")?;
    ensure!(displaced >= 640 - 384, "{displaced} gave way");
    drop(idle);
    Ok(())
}

/// Right passwords that are new from another peer, and then known ones from the peer that guesses for the same users.
#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn guesses_keep_no_right_password_from_being_answered() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let web = folder.path().join("web.yml");
    let users: Vec<_> = (0..10).map(|user| format!("user{user}")).collect();
    // Dear enough that guesses come faster than they are checked.
    let hash = bcrypt::hash("right", 8)?;
    let of_users: String = users.iter().map(|user| format!("  {user}: {hash}\n")).collect();
    fs::write(&web, format!("basic_auth_users:\n{of_users}"))?;
    let plain = format!("http://{PLAIN}");
    let web = web.to_str().context("UTF-8")?;
    let agent = start(&["--listen", GUARDED, "--listen", &plain, "--web.config.file", web])?;
    let (is_over, guesses) = (AtomicBool::new(false), AtomicU64::new(0));
    thread::scope(|scope| -> Result<()> {
        for _ in 0..48 {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    let guess = guesses.fetch_add(1, Ordering::Relaxed);
                    let credentials = STANDARD.encode(format!("user{}:guess{guess}", guess % 10));
                    // Whoever is told to come back does so at once.
                    let _refused = answer(
                        agent.address(),
                        &format!(
                            "GET /metrics HTTP/1.1\r\nhost: {GUARDED}\r\nconnection: close\r\n\
                             authorization: Basic {credentials}\r\n\r\n"
                        ),
                    );
                }
            });
        }
        let observed = (|| {
            let begin = Instant::now();
            while refusals("unauthorized")? < 10 {
                ensure!(begin.elapsed() < LIMIT, "waited for guesses");
                thread::park_timeout(PACE);
            }
            let mut statuses = Vec::new();
            // First from another peer than the guesses, and then, when they are known, from the same.
            for (user, from) in users
                .iter()
                .map(|user| (user, "127.0.0.2"))
                .chain(users.iter().map(|user| (user, "127.0.0.1")))
            {
                let user = format!("{user}:right");
                let url = format!("http://{GUARDED}/metrics");
                statuses.push(curl(&url, from, &["--max-time", "30", "--user", &user])?);
            }
            eprintln!("{} guesses, {statuses:?}", guesses.load(Ordering::Relaxed));
            ensure!(statuses.iter().all(|status| status == "200"), "{statuses:?}");
            Ok(())
        })();
        is_over.store(true, Ordering::Relaxed);
        observed
    })
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn only_names_of_this_host_are_answered() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let config = folder.path().join("agent.toml");
    fs::write(&config, format!("listen = \"{PLAIN}\"\nhosts = [\"minimizer.example\"]\n"))?;
    let agent = start(&["--config", config.to_str().context("UTF-8")?])?;
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for (host, status) in [
        (PLAIN, 200),
        ("localhost:9080", 200),
        (own.as_str(), 200),
        ("minimizer.example:9080", 200),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:9080", 421),
    ] {
        for path in ["/metrics", "/status", "/-/healthy", "/"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
            let said = answer(agent.address(), &request)?;
            ensure!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{host}{path}: {said}");
            ensure!(status == 200 || said.contains("`hosts` of agent.toml"), "{said}");
        }
    }
    let request = format!(
        "GET /status HTTP/1.1\r\nhost: {PLAIN}\r\norigin: http://evil.example\r\nconnection: close\r\n\r\n"
    );
    let said = answer(agent.address(), &request)?;
    ensure!(said.starts_with("HTTP/1.1 421 ") && said.contains("`hosts` of agent.toml"), "{said}");
    let said = answer(agent.address(), "GET /metrics HTTP/1.0\r\n\r\n")?;
    ensure!(said.starts_with("HTTP/1.0 200 "), "{said}");
    ensure!(refusals("misdirected")? == 9);
    let status = Command::new(minimizer()).args(["status", "--listen", PLAIN]).output()?;
    ensure!(status.status.success());
    Ok(())
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_port_that_others_reach_without_tls_is_warned_of() -> Result<()> {
    let _veth = Veth::new()?;
    let agent = start(&["--listen", PLAIN, "--listen", "0.0.0.0:9081"])?;
    let (ended, said) = agent.stop()?;
    ensure!(ended.success(), "{said}");
    let warnings: Vec<_> = said.lines().filter(|line| line.contains("without TLS")).collect();
    ensure!(warnings.len() == 1, "{said}");
    for part in ["warning: ", "0.0.0.0:9081", "--web.config.file", "--listen 127.0.0.1:9081"] {
        ensure!(warnings[0].contains(part), "{part} is missing in {}", warnings[0]);
    }
    Ok(())
}

fn set_mode(path: &Path, mode: u32) -> Result<()> {
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(mode))?)
}

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn a_key_that_others_can_read_is_refused() -> Result<()> {
    let _veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let authority = Authority::new("authority")?;
    authority.write(folder.path(), "server", "localhost")?;
    let key = fs::read_to_string(folder.path().join("server.key"))?.replace('\n', "\n    ");
    let web = folder.path().join("web.yml");
    let named = "tls_server_config:\n  cert_file: server.pem\n  key_file: server.key\n".to_owned();
    let inline = format!("tls_server_config:\n  cert_file: server.pem\n  key: |\n    {key}\n");
    for (text, file) in [(named, "server.key"), (inline, "web.yml")] {
        fs::write(&web, text)?;
        set_mode(&folder.path().join(file), 0o644)?;
        let mut command = Command::new(minimizer());
        command.args(["run", "-i", RECEIVER, "--listen", GUARDED, "--web.config.file"]).arg(&web);
        // An agent that takes the key would run on.
        let mut limited = Command::new("timeout");
        limited.args(["--signal=TERM", "20"]).arg(command.get_program()).args(command.get_args());
        let output = limited.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(78), "{:?}: {said}", output.status);
        for part in ["web.yml:", file, "mode 0644", "chmod 600"] {
            ensure!(said.contains(part), "{part} is missing in {said}");
        }
        set_mode(&folder.path().join(file), 0o600)?;
    }
    Ok(())
}

/// A user of this host who is neither root nor the agent's.
const NOBODY: u32 = 65_534;

#[test]
#[cfg_attr(without_kernel, ignore = "needs root and the kernel program: cargo xtask test")]
fn counts_are_told_to_root_and_not_to_other_users_of_this_host() -> Result<()> {
    let veth = Veth::new()?;
    let folder = tempfile::tempdir()?;
    let web = folder.path().join("web.yml");
    fs::write(&web, format!("basic_auth_users: {{ scraper: {} }}", bcrypt::hash("right", 4)?))?;
    fs::set_permissions(&web, fs::Permissions::from_mode(0o600))?;
    let web = web.to_str().context("is text")?;
    let plain = format!("http://{PLAIN}");
    // Without a web configuration every loopback address is plain.
    for options in
        [&["--listen", PLAIN][..], &["--listen", &plain, "--listen", GUARDED, "--web.config.file", web]]
    {
        let agent = start(options)?;
        veth.send(10, 100)?;
        agent.wait_for(|status| status["ledger"]["exported"]["packets"].as_u64() >= Some(10))?;
        let ask = |user: u32, address: &str, path: &str, options: &[&str]| -> Result<(String, String)> {
            let mut curl = Command::new("curl");
            curl.args(["--silent", "--noproxy", "*", "--write-out", "\n%{http_code}"])
                .args(options)
                .uid(user)
                .gid(user);
            let output = curl.arg(format!("http://{address}{path}")).output()?;
            let text = String::from_utf8(output.stdout)?;
            let (body, status) = text.rsplit_once('\n').context("a status")?;
            Ok((status.to_owned(), body.to_owned()))
        };
        for path in ["/metrics", "/", "/status", "/-/healthy", "/-/ready"] {
            let (status, body) = ask(0, PLAIN, path, &[])?;
            ensure!(status == "200" && !body.contains("withheld"), "{path}: {body}");
        }
        for (path, expected) in
            [("/metrics", "403"), ("/", "403"), ("/-/healthy", "200"), ("/-/ready", "200")]
        {
            let (status, body) = ask(NOBODY, PLAIN, path, &[])?;
            ensure!(status == expected, "{path}: {status} {body}");
        }
        let (status, body) = ask(NOBODY, PLAIN, "/status", &[])?;
        ensure!(status == "200" && body.contains("\"withheld\":true"), "{body}");
        ensure!(!body.contains("packets") && !body.contains("octets") && !body.contains("records"), "{body}");
        ensure!(refusals("forbidden")? == 2);
        if options.len() > 2 {
            // Whoever has the password has the rights, whichever user it is.
            let (status, body) = ask(NOBODY, GUARDED, "/metrics", &["--user", "scraper:right"])?;
            ensure!(status == "200" && body.contains("minimizer_sink_exported_octets_total"), "{status}");
        }
        // What `status` and `reload` need is there, and `top` says what it lacks.
        let copy = folder.path().join("minimizer");
        fs::copy(minimizer(), &copy)?;
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))?;
        let said =
            |verb: &str| Command::new(&copy).args([verb, "--listen", PLAIN]).uid(NOBODY).gid(NOBODY).output();
        let status = said("status")?;
        let text = String::from_utf8_lossy(&status.stdout).into_owned();
        ensure!(status.status.success() && text.contains("counts       are told to root"), "{text}");
        ensure!(!text.contains("seen") && text.contains("balanced"), "{text}");
        let top = said("top")?;
        let text = String::from_utf8_lossy(&top.stderr).into_owned();
        ensure!(top.status.code() == Some(77) && text.contains("tells counts only to root"), "{text}");
        let reload = said("reload")?;
        let text = String::from_utf8_lossy(&reload.stderr).into_owned();
        ensure!(text.contains("does not take a signal from this user"), "{text}");
        ensure!(agent.stop()?.0.success());
    }
    Ok(())
}
