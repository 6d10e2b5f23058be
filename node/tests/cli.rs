//! The program as a person or a script meets it: what it prints where, and how it ends.

use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

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

#[test]
fn what_is_in_force_is_shown_with_where_it_comes_from() {
    let file = file("[node]\nname = \"a\"\n\n[limits]\ntopic_levels = 9\nmax_inflight = 8\n");
    let path = file.path().to_str().expect("a path");
    let secret = "hunter2hunter2hunter2hunter2hunter2";
    let show = |args: &[&str]| {
        let output = command(&[&["config", "show", "--config", path], args].concat())
            .env("ROOKERY__NODE__NAME", "b")
            .env("ROOKERY__LIMITS__MAX_INFLIGHT", "7")
            .env("ROOKERY__CLUSTER__SEEDS", "x:1,y:2")
            .env("ROOKERY__AUTH__CHAIN", "users,jwt")
            .env("ROOKERY__AUTH__JWT__SECRET", secret)
            .output()
            .expect("it runs");
        assert!(!stdout(&output).contains("hunter2") && !stderr(&output).contains("hunter2"));
        output
    };
    let output = show(&["--origin", "--set", "node.name=c"]);
    assert_eq!((code(&output), stderr(&output)), (Some(0), ""));
    let lines: Vec<_> =
        stdout(&output).lines().map(|l| l.split_whitespace().collect::<Vec<_>>().join(" ")).collect();
    for expected in [
        "name = \"c\" # --set node.name".to_owned(),
        "data_dir = \"rookery-data\" # default".to_owned(),
        format!("topic_levels = 9 # {path}:5"),
        "max_inflight = 7 # environment variable ROOKERY__LIMITS__MAX_INFLIGHT".to_owned(),
        "seeds = [\"x:1\", \"y:2\"] # environment variable ROOKERY__CLUSTER__SEEDS".to_owned(),
        "#secret is set, and not shown # environment variable ROOKERY__AUTH__JWT__SECRET".to_owned(),
        "header = \"\" # default".to_owned(),
    ] {
        assert!(lines.contains(&expected), "{expected} is not in {lines:#?}");
    }

    // What is shown is a configuration, and says the same.
    let shown = show(&[]);
    assert!(!stdout(&shown).contains("default"), "{}", stdout(&shown));
    let without_token = stdout(&shown).replace(", \"jwt\"", "");
    let copy = self::file(&without_token);
    let again = rookery(&["config", "show", "--config", copy.path().to_str().expect("a path")]);
    assert_eq!(stdout(&again), without_token.replace("#secret is set, and not shown", "secret = \"\""));

    let json = show(&["-o", "json"]);
    let keys: Vec<serde_json::Value> = serde_json::from_str(stdout(&json)).expect("JSON");
    let is_there = |expected: serde_json::Value| assert!(keys.contains(&expected), "{expected} of {keys:#?}");
    is_there(serde_json::json!({
        "key": "limits.topic_levels", "value": 9, "secret": false, "origin": format!("{path}:5")
    }));
    is_there(serde_json::json!({
        "key": "auth.jwt.secret", "value": null, "secret": true,
        "origin": "environment variable ROOKERY__AUTH__JWT__SECRET"
    }));
    is_there(serde_json::json!({
        "key": "auth.allow_anonymous", "value": false, "secret": false, "origin": "default"
    }));
}

#[test]
fn what_no_node_would_start_with_is_shown_all_the_same() {
    let args = ["config", "show", "--origin", "--set", "listeners.tcp.bind=0.0.0.0:1883"];
    let output = rookery(&args);
    assert_eq!(code(&output), Some(2));
    assert!(stdout(&output).contains("\nbind = \"0.0.0.0:1883\""), "{}", stdout(&output));
    assert!(
        stderr(&output).contains("listeners.tcp.bind: 0.0.0.0:1883 can be reached"),
        "{}",
        stderr(&output)
    );
    let output = rookery(&["config", "show", "--set", "node.nam=a"]);
    assert_eq!((code(&output), stdout(&output)), (Some(2), ""));
}

#[test]
fn a_shell_completes_commands_and_options() {
    let script = rookery(&["completions", "bash"]);
    assert_eq!((code(&script), stderr(&script)), (Some(0), ""));
    let script = file(stdout(&script));
    let complete = |words: &str| {
        let ask = format!(
            "source {}; COMP_WORDS=({words}); COMP_CWORD=$((${{#COMP_WORDS[@]}} - 1)); \
             _rookery rookery \"${{COMP_WORDS[COMP_CWORD]}}\" \"${{COMP_WORDS[COMP_CWORD-1]}}\"; \
             echo \"${{COMPREPLY[*]}}\"",
            script.path().display()
        );
        let output = Command::new("bash").args(["--norc", "-c", &ask]).output().expect("bash runs");
        assert_eq!((code(&output), stderr(&output)), (Some(0), ""), "{words}");
        stdout(&output).trim().to_owned()
    };
    assert_eq!(complete("rookery clus"), "cluster");
    assert_eq!(complete("rookery cluster tr"), "transfer-leader");
    assert_eq!(complete("rookery config show --or"), "--origin");
    assert_eq!(complete("rookery -o js"), "json");
    for (shell, start) in [("zsh", "#compdef rookery"), ("fish", "#"), ("elvish", "\n"), ("powershell", "\n")]
    {
        let output = rookery(&["completions", shell]);
        assert_eq!((code(&output), stderr(&output)), (Some(0), ""), "{shell}");
        assert!(stdout(&output).starts_with(start) && stdout(&output).contains("transfer-leader"), "{shell}");
    }
}

#[test]
fn every_command_has_a_manual_page() {
    fn names(command: &clap::Command, prefix: &str, all: &mut Vec<String>) {
        let name = format!("{prefix}{}", command.get_name());
        for below in command.get_subcommands() {
            names(below, &format!("{name}-"), all);
        }
        all.push(format!("{name}.1"));
    }
    let mut expected = Vec::new();
    names(&<rookery::cli::Cli as clap::CommandFactory>::command(), "", &mut expected);
    expected.sort();
    let home = tempfile::tempdir().expect("a directory");
    let dir = home.path().join("man1");
    let output = rookery(&["man", "--dir", dir.to_str().expect("a path")]);
    assert_eq!((code(&output), stderr(&output)), (Some(0), ""));
    assert_eq!(stdout(&output).lines().collect::<Vec<_>>(), expected);
    let read = |name: &str| std::fs::read_to_string(dir.join(name)).expect(name);
    let main = rookery(&["man"]);
    assert_eq!(stdout(&main), read("rookery.1"));
    assert!(stdout(&main).contains("5  refused, because it would cost quorum"), "{}", stdout(&main));
    assert!(stdout(&main).contains("rookery\\-cluster(1)"), "{}", stdout(&main));
    assert!(read("rookery-cluster-token.1").contains("[default: 1h]"));
    assert!(read("rookery-cluster-status.1").contains("ROOKERY_API"));
    assert!(!read("rookery-serve.1").contains("stdin"), "hidden options stay hidden");
    let again = rookery(&["man", "--dir", dir.to_str().expect("a path"), "-o", "json"]);
    let json = serde_json::from_str::<Vec<String>>(stdout(&again)).expect("JSON");
    assert_eq!(json, expected);

    let file = file("");
    let output = rookery(&["man", "--dir", file.path().to_str().expect("a path")]);
    assert_eq!((code(&output), stdout(&output)), (Some(1), ""));
    assert!(stderr(&output).contains(file.path().to_str().expect("a path")), "{}", stderr(&output));
}

#[test]
fn a_service_manager_is_told_and_its_reload_ends_nothing() {
    let home = tempfile::tempdir().expect("a directory");
    let socket = home.path().join("notify");
    let manager = UnixDatagram::bind(&socket).expect("bound");
    manager.set_read_timeout(Some(Duration::from_secs(60))).expect("set");
    let told = || {
        let mut text = [0; 64];
        let length = manager.recv(&mut text).expect("told in time");
        String::from_utf8_lossy(&text[..length]).trim().to_owned()
    };
    let mut serve =
        command(&["serve", "--set", &format!("node.data_dir={}", home.path().join("data").display())]);
    for key in ["listeners.tcp.bind", "listeners.ws.bind", "api.bind", "cluster.bind"] {
        serve.args(["--set", &format!("{key}={}", free_address())]);
    }
    let child = serve
        .env("NOTIFY_SOCKET", &socket)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it runs");
    let signal = |name: &str| {
        let kill = Command::new("kill").args([name, &child.id().to_string()]).status().expect("kill runs");
        assert!(kill.success(), "the node is there for {name}");
    };
    assert_eq!(told(), "READY=1");
    signal("-HUP");
    signal("-TERM");
    assert_eq!(told(), "STOPPING=1");
    let output = child.wait_with_output().expect("ended");
    assert_eq!(code(&output), Some(0), "{}", stderr(&output));
}
