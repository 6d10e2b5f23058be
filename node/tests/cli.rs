//! The program as a person or a script meets it: what it prints where, and how it ends.

use std::io::Write as _;
use std::net::TcpListener;
use std::process::{Command, Output, Stdio};

fn rookery(args: &[&str]) -> Output {
    command(args).output().expect("it runs")
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_rookery"));
    command.args(args).env_clear().env("PATH", "/usr/bin:/bin");
    command
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn stdout(output: &Output) -> &str {
    std::str::from_utf8(&output.stdout).expect("UTF-8")
}

fn stderr(output: &Output) -> &str {
    std::str::from_utf8(&output.stderr).expect("UTF-8")
}

fn file(text: &str) -> tempfile::NamedTempFile {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a file");
    file.write_all(text.as_bytes()).expect("written");
    file
}

/// A port of 127.0.0.1 on which nobody listens: it was ours a moment ago.
fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    listener.local_addr().expect("bound").to_string()
}

#[test]
fn the_example_is_a_configuration_that_is_accepted() {
    let example = rookery(&["config", "example"]);
    assert_eq!((code(&example), stderr(&example)), (Some(0), ""));
    assert!(stdout(&example).contains("[listeners.tcp]"), "{}", stdout(&example));
    let file = file(stdout(&example));
    let path = file.path().to_str().expect("a path");
    let check = rookery(&["config", "check", "--config", path]);
    assert_eq!((code(&check), stdout(&check)), (Some(0), "the configuration is good\n"));
    let json = rookery(&["config", "check", "--config", path, "--set", "node.name=n7", "-o", "json"]);
    assert_eq!(stdout(&json), "{\"node\":\"n7\",\"ok\":true}\n");
}

#[test]
fn a_wrong_configuration_is_named_line_by_line_and_ends_with_2() {
    let file = file("[node]\nname = \"a\"\n\n[listeners.tcp]\nbnd = \"127.0.0.1:1\"\n");
    let path = file.path().to_str().expect("a path");
    for args in [&["config", "check", "--config", path][..], &["serve", "--config", path]] {
        let output = rookery(args);
        assert_eq!((code(&output), stdout(&output)), (Some(2), ""));
        let expected =
            format!("rookery: {path}:5: unknown key listeners.tcp.bnd, did you mean listeners.tcp.bind?\n");
        assert_eq!(stderr(&output), expected);
    }
}

#[test]
fn a_node_that_everyone_could_reach_does_not_start_by_accident() {
    let output =
        command(&["serve"]).env("ROOKERY__LISTENERS__TCP__BIND", "0.0.0.0:0").output().expect("it runs");
    assert_eq!(code(&output), Some(2));
    assert!(stderr(&output).contains("auth.allow_anonymous = true"), "{}", stderr(&output));
}

#[test]
fn wrong_usage_ends_with_2_and_prints_nothing_on_stdout() {
    for args in [
        &["cluster"][..],
        &["nothing"],
        &["cluster", "join"],
        &["cluster", "join", "127.0.0.1:1"],
        &["cluster", "status", "--api", "not an address"],
        &["clients", "ls", "-o", "xml"],
        &["mqtt", "pub", "a/#", "b"],
        &["mqtt", "sub", "--url", "http://a", "b"],
        &["config", "check", "--set", "nonsense"],
    ] {
        let output = rookery(args);
        assert_eq!((code(&output), stdout(&output)), (Some(2), ""), "{args:?}: {}", stderr(&output));
        assert!(!stderr(&output).is_empty());
    }
}

#[test]
fn a_node_that_is_not_there_ends_with_4() {
    let address = free_address();
    for args in [
        &["cluster", "status", "--api", &address][..],
        &["clients", "ls", "--api", &address],
        &["mqtt", "pub", "--url", &address, "a", "b"],
    ] {
        let output = rookery(args);
        assert_eq!((code(&output), stdout(&output)), (Some(4), ""), "{args:?}: {}", stderr(&output));
    }
    let output = command(&["cluster", "members"]).env("ROOKERY_API", &address).output().expect("it runs");
    assert!(stderr(&output).contains(&address), "{}", stderr(&output));
    let waited = rookery(&["cluster", "status", "--wait", "--timeout", "1ms", "--api", &address]);
    assert_eq!(code(&waited), Some(6));
}

#[test]
fn a_user_is_made_from_a_password_that_is_no_argument() {
    let password = file("pencil\n");
    let args = ["users", "scram", "ann", "--password-file", password.path().to_str().expect("a path")];
    let output = rookery(&args);
    assert_eq!((code(&output), stderr(&output)), (Some(0), ""));
    let line = stdout(&output);
    assert!(line.starts_with("ann:SCRAM-SHA-256$4096:") && line.lines().count() == 1, "{line}");
    assert!(!line.contains("pencil"));
    assert_ne!(line, stdout(&rookery(&args)), "the salt is another one");
    let users = file(line);
    let set = format!("auth.scram_users_file={}", users.path().display());
    assert_eq!(code(&rookery(&["config", "check", "--set", &set])), Some(0));

    let mut child = command(&["users", "scram", "b:c", "--iterations", "5000", "-o", "json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("it runs");
    child.stdin.take().expect("piped").write_all("p\u{e4}ss".as_bytes()).expect("reads");
    let output = child.wait_with_output().expect("it ends");
    let start = "{\"line\":\"b:c:SCRAM-SHA-256$5000:";
    assert!(stdout(&output).starts_with(start), "{}", stdout(&output));

    for (name, password, said) in [
        ("", "x", "the user name is empty"),
        ("#a", "x", "cannot begin with '#'"),
        ("a", "\n", "the password is empty"),
        ("a", "a\tb", "the password has characters"),
    ] {
        let password = file(password);
        let path = password.path().to_str().expect("a path");
        let output = rookery(&["users", "scram", name, "--password-file", path]);
        assert_eq!((code(&output), stdout(&output)), (Some(2), ""), "{name} {said}");
        assert!(stderr(&output).contains(said), "{}", stderr(&output));
    }
}

#[test]
fn the_long_help_documents_the_exit_codes() {
    let output = rookery(&["--help"]);
    assert_eq!(code(&output), Some(0));
    assert!(stdout(&output).contains("5  refused, because it would cost quorum"), "{}", stdout(&output));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let mut child =
        command(&["config", "example"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("runs");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("ended");
    assert_eq!((code(&output), stderr(&output)), (Some(0), ""));
}

#[test]
fn dev_names_the_ports_that_are_in_use_before_it_starts_anything() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = taken.local_addr().expect("bound").port().to_string();
    let home = tempfile::tempdir().expect("a directory");
    let output = command(&["dev", "--nodes", "1", "--mqtt-port", &port, "--ws-port", "0", "--api-port", "0"])
        .args(["--peer-port", "0", "--json"])
        .env("TMPDIR", home.path())
        .output()
        .expect("it runs");
    assert_eq!((code(&output), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).contains(&format!("{port} (n1 mqtt")), "{}", stderr(&output));
    assert_eq!(home.path().read_dir().expect("there").count(), 0, "nothing is left behind");
}
