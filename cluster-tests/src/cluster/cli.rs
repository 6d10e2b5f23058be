//! The command line as an operator uses it: every change of the cluster's membership in the
//! tests goes through the binary, and what it says is read with `-o json`.

use std::ffi::OsStr;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use serde_json::Value;

/// The binary under test: `ROOKERY_BIN`, or `rookery` beside the folder of the test executable.
///
/// # Panics
/// When there is none.
pub fn binary() -> PathBuf {
    let given = std::env::var_os("ROOKERY_BIN").map(PathBuf::from);
    given.unwrap_or_else(|| crate::tools::built("rookery"))
}

/// What a command left behind.
#[derive(Debug)]
pub struct Said {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        Said {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// Runs `rookery` to its end.
pub fn rookery<S: AsRef<OsStr>>(args: &[S]) -> Said {
    run(Command::new(binary()).args(args))
}

fn run(command: &mut Command) -> Said {
    let output = command.stdin(Stdio::null()).output();
    output.unwrap_or_else(|e| panic!("{} does not run: {e}", binary().display())).into()
}

/// Runs `rookery` against the node whose API is at `api`, with `input` on stdin, and prints JSON.
#[track_caller]
pub fn operate(api: SocketAddr, args: &[&str], input: &str) -> Said {
    let mut child = Command::new(binary())
        .args(args)
        .args(["--api", &api.to_string(), "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{} does not run: {e}", binary().display()));
    let mut stdin = child.stdin.take().expect("a pipe");
    // A command that takes no input may be gone already.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    child.wait_with_output().expect("it ends").into()
}

/// Runs `rookery cluster …` against the node whose API is at `api`.
pub fn cluster(api: SocketAddr, args: &[&str]) -> Said {
    run(&mut cluster_command(api, args))
}

fn cluster_command(api: SocketAddr, args: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.arg("cluster").args(args).args(["--api", &api.to_string(), "-o", "json"]);
    command
}

/// The JSON that a successful command printed.
#[track_caller]
fn json(said: &Said, what: &str) -> Value {
    assert_eq!(said.code, Some(0), "rookery cluster {what}: {said:?}");
    serde_json::from_str(&said.stdout).unwrap_or_else(|e| panic!("rookery cluster {what}: {e}: {said:?}"))
}

/// Forms a cluster of the one node at `api`.
pub fn init(api: SocketAddr) {
    json(&cluster(api, &["init"]), "init");
}

/// A token with which other nodes may join.
pub fn token(api: SocketAddr) -> String {
    let answer = json(&cluster(api, &["token"]), "token");
    answer["token"].as_str().unwrap_or_else(|| panic!("no token in {answer}")).to_owned()
}

/// Tells the node at `api` to join the cluster of the peer at `seed`; returns once it is a member.
pub fn join(api: SocketAddr, seed: SocketAddr, token: &str) {
    let said = try_join(api, seed, token);
    json(&said, "join");
}

/// As [`join`], whatever comes of it.
pub fn try_join(api: SocketAddr, seed: SocketAddr, token: &str) -> Said {
    run(cluster_command(api, &["join", &seed.to_string()]).env("ROOKERY_TOKEN", token))
}

/// Takes the node at `api` out of its cluster.
pub fn leave(api: SocketAddr) -> Said {
    cluster(api, &["leave", "--yes"])
}

/// Takes a node that is down out of the cluster that `api` is of.
pub fn forget(api: SocketAddr, name: &str) -> Said {
    cluster(api, &["forget", name, "--yes"])
}

/// Has the CA of the cluster that `api` is of replaced.
pub fn rotate_ca(api: SocketAddr, more: &[&str]) -> Said {
    cluster(api, &[&["rotate-ca", "--yes"], more].concat())
}

/// What a node knows about its cluster.
#[derive(Clone, Debug)]
pub struct Status {
    /// Name of the leader, when there is one.
    pub leader: Option<String>,
    pub members: Vec<Member>,
}

#[derive(Clone, Debug)]
pub struct Member {
    pub name: String,
    pub voter: bool,
    /// It is not declared down.
    pub up: bool,
}

impl Status {
    pub fn member(&self, name: &str) -> Option<&Member> {
        self.members.iter().find(|member| member.name == name)
    }

    pub fn voters(&self) -> usize {
        self.members.iter().filter(|member| member.voter).count()
    }
}

/// The status as the node at `api` sees it; `None` when it cannot tell now. An unhealthy cluster
/// has one too, with another exit code.
pub fn status(api: SocketAddr) -> Option<Status> {
    let said = cluster(api, &["status"]);
    let answer: Value = serde_json::from_str(&said.stdout).ok()?;
    let members = answer["members"].as_array()?.iter().map(|member| Member {
        name: member["name"].as_str().unwrap_or_default().to_owned(),
        voter: member["role"] == "voter",
        up: member["state"] == "up",
    });
    Some(Status { leader: answer["leader"].as_str().map(str::to_owned), members: members.collect() })
}
