//! Starting: what a person sees first, and what refuses to start says why.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use cluster_tests::cluster::{Cluster, PortBlock, Said, binary, rookery, signal};
use cluster_tests::fresh;
use cluster_tests::http;
use cluster_tests::mqtt::{Client, Options};
use cluster_tests::wait::eventually;
use serde_json::Value;

/// From the start of `rookery dev` to its line.
const DEV_START: Duration = Duration::from_secs(10);

/// For all processes to be gone after SIGTERM.
const DEV_STOP: Duration = Duration::from_secs(15);

/// For a node that cannot start to say so.
const REFUSES: Duration = Duration::from_secs(15);

struct Dev {
    child: Child,
    nodes: Vec<Value>,
    stdout: BufReader<std::process::ChildStdout>,
}

impl Dev {
    /// Runs `rookery dev --json` and takes its line.
    fn start(ports: [u16; 4], nodes: u16, more: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["dev", "--json", "--nodes", &nodes.to_string()]);
        let options = ["--mqtt-port", "--ws-port", "--api-port", "--peer-port"];
        for (option, port) in options.into_iter().zip(ports) {
            command.args([option, &port.to_string()]);
        }
        command.args(more).stdin(Stdio::null()).stdout(Stdio::piped());
        let start = Instant::now();
        let mut child = command.spawn().expect("rookery starts");
        let mut stdout = BufReader::new(child.stdout.take().expect("a pipe"));
        let mut line = String::new();
        stdout.read_line(&mut line).expect("a line");
        let took = start.elapsed();
        let answer: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{e}: {line:?}"));
        let nodes = answer["nodes"].as_array().expect("nodes").clone();
        let dev = Dev { child, nodes, stdout };
        assert!(took < DEV_START, "rookery dev took {took:?}");
        dev
    }

    fn text(&self, i: usize, key: &str) -> &str {
        self.nodes[i][key].as_str().unwrap_or_else(|| panic!("no {key} in {}", self.nodes[i]))
    }

    fn pids(&self) -> Vec<u32> {
        self.nodes.iter().map(|node| node["pid"].as_u64().expect("a pid") as u32).collect()
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            // SIGTERM, so that it stops what it started.
            signal(self.child.id(), "TERM");
            let _ = self.child.wait();
        }
    }
}

/// Whether a process exists and is not merely waiting to be buried.
fn alive(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
}

#[test]
fn dev_prints_one_line_and_serves_and_stops() {
    let mut block = PortBlock::reserve();
    let mut dev = Dev::start([(); 4].map(|()| block.run(3)), 3, &[]);
    assert_eq!(dev.nodes.len(), 3);
    let names: Vec<&str> = (0..3).map(|i| dev.text(i, "name")).collect();
    assert_eq!(names, ["n1", "n2", "n3"]);
    let mut leaders = Vec::new();
    for i in 0..3 {
        let said = rookery(&["cluster", "status", "--api", dev.text(i, "api"), "-o", "json"]);
        assert_eq!(said.code, Some(0), "{said:?}");
        let status: Value = serde_json::from_str(&said.stdout).expect("JSON");
        assert_eq!(status["members"].as_array().map(Vec::len), Some(3), "{status}");
        leaders.push(status["leader"].as_str().expect("a leader").to_owned());
        let ready = http::get(dev.text(i, "api").parse().expect("an address"), "/readyz");
        assert_eq!(ready.expect("answers").0, 200);
        TcpListener::bind(dev.text(i, "ws")).expect_err("the WebSocket listener listens");
        TcpListener::bind(dev.text(i, "peer")).expect_err("the peer listener listens");
    }
    leaders.dedup();
    assert_eq!(leaders.len(), 1, "one leader: {leaders:?}");

    let mqtt = |i: usize| dev.text(i, "mqtt").parse::<std::net::SocketAddr>().expect("an address");
    let mut subscriber = Client::connect(mqtt(2), &Options::v5("sub")).expect("connects");
    subscriber.subscribe(&[("hello", 1)]).expect("SUBACK");
    let mut publisher = Client::connect(mqtt(0), &Options::v5("pub")).expect("connects");
    assert_eq!(publisher.publish("hello", "world", 1).expect("acknowledged"), 0);
    assert_eq!(subscriber.texts(1, DEV_START).expect("there"), ["world"]);

    let pids = dev.pids();
    assert!(pids.iter().all(|pid| alive(*pid)));
    signal(dev.child.id(), "TERM");
    let status = eventually("rookery dev ends", DEV_STOP, || dev.child.try_wait().expect("its state"));
    assert!(status.success(), "{status}");
    assert!(!pids.iter().any(|pid| alive(*pid)), "a node outlived rookery dev");
    let mut rest = String::new();
    dev.stdout.read_to_string(&mut rest).expect("text");
    assert_eq!(rest, "", "exactly one line on stdout");
}

#[test]
fn a_node_killed_under_dev_stays_dead_and_the_data_dir_is_taken_up_again() {
    let mut block = PortBlock::reserve();
    let ports = [(); 4].map(|()| block.run(3));
    let dir = tempfile::tempdir().expect("a directory");
    let data = dir.path().join("cluster").display().to_string();
    let topic = fresh("kept");
    {
        let dev = Dev::start(ports, 3, &["--data-dir", &data]);
        let victim = dev.pids()[2];
        signal(victim, "KILL");
        let mqtt: std::net::SocketAddr = dev.text(0, "mqtt").parse().expect("an address");
        let mut client = eventually("served by the rest", DEV_START, || {
            Client::connect(mqtt, &Options::v5(&fresh("c"))).ok()
        });
        assert!(client.retain(&topic, "value", 1).expect("acknowledged") < 0x80);
        assert!(!alive(victim));
        TcpListener::bind(dev.text(2, "mqtt")).expect("nobody started it again");
    }
    let dev = Dev::start(ports, 3, &["--data-dir", &data]);
    let mqtt: std::net::SocketAddr = dev.text(2, "mqtt").parse().expect("an address");
    let mut client = Client::connect(mqtt, &Options::v5(&fresh("c"))).expect("connects");
    client.subscribe(&[(&topic, 1)]).expect("SUBACK");
    assert_eq!(client.texts(1, DEV_START).expect("there"), ["value"]);
}

/// Runs a command that must refuse to run, soon.
#[track_caller]
fn refused(command: &mut Command) -> Said {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("rookery starts");
    let ended = cluster_tests::wait::within(REFUSES, || child.try_wait().expect("its state"));
    if ended.is_none() {
        let _ = child.kill();
    }
    let said = Said::from(child.wait_with_output().expect("its output"));
    assert!(ended.is_some(), "it runs instead of refusing: {said:?}");
    assert_ne!(said.code, Some(0), "{said:?}");
    said
}

#[track_caller]
fn mentions(said: &Said, words: &[&str]) {
    let text = format!("{}{}", said.stderr, said.stdout);
    for word in words {
        assert!(text.contains(word), "nothing about {word:?} in {said:?}");
    }
}

fn serve(config: &Path) -> Command {
    let mut command = Command::new(binary());
    command.args(["serve", "--config"]).arg(config).stdin(Stdio::null());
    command
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_valid_one() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("rookery.toml");
    fs::write(&file, "[node]\nname = \"n1\"\ndata_dri = \"x\"\n").expect("written");
    let said = refused(&mut serve(&file));
    assert_eq!(said.code, Some(2), "{said:?}");
    mentions(&said, &["data_dri", "data_dir", ":3"]);
    assert!(!dir.path().join("x").exists() && !Path::new("x").exists(), "nothing was made");

    let said = refused(Command::new(binary()).args(["serve", "--set", "listeners.tpc.bind=127.0.0.1:1"]));
    mentions(&said, &["listeners.tpc", "listeners.tcp"]);
}

#[test]
fn an_open_listener_beyond_loopback_without_authentication_is_refused() {
    let mut cluster = Cluster::spawned(1, "");
    cluster.node(1).stop();
    let mut port = PortBlock::reserve();
    let bind = format!("listeners.tcp.bind=0.0.0.0:{}", port.port());
    let said = refused(cluster.node(1).command().args(["--set", &bind]));
    mentions(&said, &["0.0.0.0", "auth"]);
}

#[test]
fn a_port_in_use_is_named() {
    let mut cluster = Cluster::start(1);
    cluster.node(1).stop();
    let ports = cluster.node(1).ports;
    for address in [ports.mqtt, ports.ws, ports.tls, ports.wss, ports.api, ports.peer] {
        let taken = TcpListener::bind(address).expect("free");
        let said = refused(&mut cluster.node(1).command());
        mentions(&said, &[&address.port().to_string(), "in use"]);
        drop(taken);
    }
    cluster.restart(1);
}

#[test]
fn a_data_directory_that_another_process_uses_is_left_alone() {
    let mut cluster = Cluster::start(1);
    let mut ports = PortBlock::reserve();
    let free = ports.node();
    let mut second = cluster.node(1).command();
    for (key, address) in [
        ("listeners.tcp.bind", free.mqtt),
        ("listeners.ws.bind", free.ws),
        ("listeners.tls.bind", free.tls),
        ("listeners.wss.bind", free.wss),
        ("api.bind", free.api),
        ("cluster.bind", free.peer),
        ("cluster.advertise", free.peer),
    ] {
        second.args(["--set", &format!("{key}={address}")]);
    }
    let said = refused(&mut second);
    let data = cluster.node(1).data_dir().display().to_string();
    mentions(&said, &[&data, "in use"]);
    Client::connect(cluster.mqtt(1), &Options::v5(&fresh("c"))).expect("the first is served on");
}

/// All files below a directory with their sizes.
fn files(dir: &Path) -> Vec<(PathBuf, u64)> {
    let mut found = Vec::new();
    let mut open = vec![dir.to_owned()];
    while let Some(dir) = open.pop() {
        for entry in fs::read_dir(&dir).expect("a directory") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                open.push(path);
            } else {
                let length = fs::metadata(&path).expect("a file").len();
                found.push((path, length));
            }
        }
    }
    found.sort();
    found
}

#[test]
fn data_of_a_newer_version_is_refused_and_kept() {
    let mut cluster = Cluster::start(1);
    cluster.node(1).stop();
    let format = cluster.node(1).data_dir().join("format");
    let known = fs::read(&format).expect("the format of the data directory");
    fs::write(&format, "4000000000\n").expect("written");
    let before = files(&cluster.node(1).data_dir());
    let said = refused(&mut cluster.node(1).command());
    mentions(&said, &[&format.display().to_string(), "newer"]);
    assert_eq!(files(&cluster.node(1).data_dir()), before, "nothing was touched");
    fs::write(&format, known).expect("written");
    cluster.restart(1);
}

#[test]
fn a_damaged_log_is_named_and_kept() {
    let mut cluster = Cluster::start(1);
    let mut client =
        Client::connect(cluster.mqtt(1), &Options::v5(&fresh("c")).persistent()).expect("connects");
    client.subscribe(&[("t", 1)]).expect("SUBACK");
    for _ in 0..50 {
        client.publish("t", [b'.'; 1000], 1).expect("acknowledged");
    }
    cluster.node(1).stop();
    let raft = cluster.node(1).data_dir().join("raft");
    let segment = files(&raft).into_iter().map(|(path, _)| path).find(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        name.ends_with(".log") && !name.starts_with("spare")
    });
    let segment = segment.unwrap_or_else(|| panic!("no log in {:?}", files(&raft)));
    // In the middle of what is written: what follows shows that it is no torn end.
    let mut bytes = fs::read(&segment).expect("the log");
    let used = bytes.iter().rposition(|byte| *byte != 0).expect("not empty");
    bytes[used / 2] ^= 0xff;
    fs::write(&segment, &bytes).expect("written");
    let before = files(&cluster.node(1).data_dir());
    let said = refused(&mut cluster.node(1).command());
    mentions(&said, &[&segment.display().to_string(), "damaged"]);
    let after = files(&cluster.node(1).data_dir());
    for file in &before {
        assert!(after.iter().any(|(path, _)| *path == file.0), "{} was removed", file.0.display());
    }
    assert_eq!(fs::read(&segment).expect("still there"), bytes, "the damaged log was changed");
    bytes[used / 2] ^= 0xff;
    fs::write(&segment, &bytes).expect("written");
    cluster.restart(1);
}
