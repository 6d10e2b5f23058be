use std::io::Write as _;
use std::path::PathBuf;

use super::*;

fn from_file(text: &str) -> Result<Config, ConfigError> {
    load(text, &[], &[])
}

fn load(text: &str, environment: &[(&str, &str)], set: &[&str]) -> Result<Config, ConfigError> {
    let mut file = tempfile::Builder::new().suffix(".toml").tempfile().expect("a temporary file");
    file.write_all(text.as_bytes()).expect("written");
    let variables = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
    let set: Vec<String> = set.iter().map(|s| (*s).to_owned()).collect();
    Config::load(Some(file.path()), variables, &set)
}

/// The only problem, as (line, text).
fn problem(text: &str) -> (usize, String) {
    let error = from_file(text).expect_err("refused");
    assert_eq!(error.problems.len(), 1, "{error}");
    match &error.problems[0] {
        Problem { place: Place::File { line, .. }, what } => (*line, what.clone()),
        Problem { what, .. } => (0, what.clone()),
    }
}

#[test]
fn nothing_given_is_the_defaults_on_loopback() {
    let config = Config::load(None, std::iter::empty(), &[]).expect("good");
    assert_eq!(config, Config::default());
    assert_eq!(config.listeners.tcp.bind, Some("127.0.0.1:1883".parse().expect("address")));
    assert!(!config.node_name().is_empty());
}

#[test]
fn an_unknown_key_is_named_with_its_line_and_the_nearest_one() {
    let cases = [
        ("[node]\nnam = \"a\"\n", 2, "node.name"),
        ("\n[cluster]\nbind = \"127.0.0.1:1\"\nsedes = []\n", 4, "cluster.seeds"),
        ("[limits]\nmax_packet_size = 1\n", 2, "limits.max_packet_size_bytes"),
        ("[listener.tcp]\nbind = \"127.0.0.1:1\"\n", 1, ""),
        ("listeners.tcp.bnd = \"127.0.0.1:1\"\n", 1, "listeners.tcp.bind"),
    ];
    for (text, line, suggestion) in cases {
        let (at, what) = problem(text);
        assert_eq!(at, line, "{text}: {what}");
        assert!(what.contains("unknown key"), "{what}");
        assert!(what.contains(suggestion), "{what} should suggest {suggestion}");
    }
}

#[test]
fn bad_values_are_named_with_their_line() {
    let cases = [
        ("[listeners.tcp]\nbind = 1883\n", 2, "expected an IP address and port"),
        ("[listeners.tcp]\nbind = \"localhost\"\n", 2, "expected an IP address and port"),
        ("[auth]\nallow_anonymous = \"yes\"\n", 2, "expected true or false"),
        ("[limits]\n\nreceive_maximum = 0\n", 3, "must be from 1 to 65535, not 0"),
        ("[limits]\nreceive_maximum = -1\n", 2, "expected an integer"),
        ("[limits]\nmax_packet_size_bytes = 1.5\n", 2, "expected an integer"),
        ("[cluster]\nvoters = 4\n", 2, "must be 3 or 5, not 4"),
        ("[cluster]\nseeds = [\"a:1\", \"b\"]\n", 2, "expected HOST:PORT"),
        ("[cluster]\nseeds = \"a:1\"\n", 2, "expected an array"),
        ("[log]\nformat = \"xml\"\n", 2, "expected one of: text, json"),
        ("[log]\nlevel = \"loud\"\n", 2, "expected a level"),
        ("[node]\nname = \"a b\"\n", 2, "must be at most 63"),
        ("node = 5\n", 1, "node is a section"),
        ("[node]\nname = \"unclosed\n", 2, ""),
        ("[node]\nname = \"a\"\nname = \"b\"\n", 3, "duplicate key"),
    ];
    for (text, line, expected) in cases {
        let (at, what) = problem(text);
        assert_eq!(at, line, "{text}: {what}");
        assert!(what.contains(expected), "{what} should contain {expected}");
    }
}

/// A directory with `cert` and `key`, and the lines that name them.
fn certificate() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().expect("a directory");
    let own = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let (cert, key) = (dir.path().join("cert"), dir.path().join("key"));
    std::fs::write(&cert, own.cert.pem()).expect("written");
    std::fs::write(&key, own.signing_key.serialize_pem()).expect("written");
    let lines = format!("cert_file = {cert:?}\nkey_file = {key:?}\n");
    (dir, lines)
}

#[test]
fn encrypted_listeners_are_off_until_they_have_an_address() {
    assert_eq!(Config::default().listeners.encrypted().count(), 0);
    // Then their files do not matter.
    load("[listeners.tls]\ncert_file = \"/nonexistent\"\n", &[], &[]).expect("not offered");
    let (_dir, lines) = certificate();
    let file = format!("[listeners.tls]\nbind = \"127.0.0.1:8883\"\n{lines}[listeners.wss]\n{lines}");
    let environment = [("ROOKERY__LISTENERS__WSS__BIND", "127.0.0.1:8084")];
    let config = load(&file, &environment, &[]).expect("good");
    let offered: Vec<_> =
        config.listeners.encrypted().map(|(address, section, ..)| (address.port(), section)).collect();
    assert_eq!(offered, [(8883, "listeners.tls"), (8084, "listeners.wss")]);
    load(&file, &environment, &["listeners.wss.bind=127.0.0.1:8883"]).expect_err("the same port");
    let config = load(&file, &environment, &["listeners.tls.bind="]).expect("taken back");
    assert_eq!(config.listeners.encrypted().count(), 1);
}

#[test]
fn certificates_that_cannot_be_used_are_named_with_their_key() {
    let (dir, lines) = certificate();
    let (_other_dir, other) = certificate();
    let other_key = other.lines().last().expect("a key");
    let cert = lines.lines().next().expect("a certificate");
    let absent = dir.path().join("absent").display().to_string();
    for (lines, key, what) in [
        (String::new(), "cert_file", "is needed"),
        (cert.to_owned(), "key_file", "is needed"),
        (format!("{cert}\nkey_file = {absent:?}"), "key_file", absent.as_str()),
        (format!("{cert}\n{other_key}"), "key_file", "is not the key"),
        (format!("{lines}ca_file = {absent:?}"), "ca_file", absent.as_str()),
        (format!("{lines}require_client_cert = true"), "ca_file", "require_client_cert"),
    ] {
        for section in ["listeners.tls", "listeners.wss"] {
            let file = format!("[{section}]\nbind = \"127.0.0.1:1\"\n{lines}");
            let text = from_file(&file).expect_err("refused").to_string();
            assert!(text.starts_with(&format!("{section}.{key}: ")) && text.contains(what), "{file}: {text}");
        }
    }
}

#[test]
fn a_key_with_a_passphrase_is_recognised() {
    let (dir, lines) = certificate();
    let block = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    std::fs::write(dir.path().join("key"), block).expect("written");
    let file = format!("[listeners.tls]\nbind = \"127.0.0.1:1\"\n{lines}");
    let text = from_file(&file).expect_err("refused").to_string();
    assert!(text.contains("is encrypted") && text.contains("openssl pkey"), "{text}");
}

#[test]
fn encryption_is_not_authentication_unless_clients_show_certificates() {
    let (dir, lines) = certificate();
    for section in ["listeners.tls", "listeners.wss"] {
        let file = format!("[{section}]\nbind = \"0.0.0.0:1\"\n{lines}");
        let text = from_file(&file).expect_err("refused").to_string();
        assert!(text.contains(&format!("{section}.bind")) && text.contains("auth.allow_anonymous"), "{text}");
        load(&file, &[], &["auth.allow_anonymous=true"]).expect("said so");
        let asked = format!("{file}ca_file = {:?}\n", dir.path().join("cert"));
        from_file(&asked).expect_err("a certificate may be left out");
        from_file(&format!("{asked}require_client_cert = true\n")).expect("everyone is known");
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let error =
        load("[node]\nnam = 1\n[log]\nformat = 3\n", &[("ROOKERY__X", "1")], &["y"]).expect_err("bad");
    assert_eq!(error.problems.len(), 4, "{error}");
    assert_eq!(error.to_string().lines().count(), 4);
}

#[test]
fn later_sources_win() {
    let file = "[node]\nname = \"file\"\n[limits]\nreceive_maximum = 10\nmax_inflight = 10\n[cluster]\nseeds = [\"a:1\"]\n";
    let environment = [
        ("ROOKERY__LIMITS__RECEIVE_MAXIMUM", "20"),
        ("ROOKERY__LIMITS__MAX_INFLIGHT", "20"),
        ("ROOKERY__CLUSTER__SEEDS", "b:1, [::1]:2"),
        ("ROOKERY_API", "not a key"),
        ("HOME", "/"),
    ];
    let config = load(file, &environment, &["limits.max_inflight=30", "log.format=json"]).expect("good");
    assert_eq!(config.node.name, "file");
    assert_eq!(config.limits.receive_maximum, 20);
    assert_eq!(config.limits.max_inflight, 30);
    assert_eq!(config.log.format, LogFormat::Json);
    let seeds: Vec<String> = config.cluster.seeds.iter().map(ToString::to_string).collect();
    assert_eq!(seeds, ["b:1", "[::1]:2"]);
}

#[test]
fn an_empty_value_takes_an_optional_one_back() {
    let config =
        load("[listeners.ws]\nbind = \"\"\n", &[("ROOKERY__LISTENERS__TCP__BIND", "")], &[]).expect("good");
    assert_eq!((config.listeners.tcp.bind, config.listeners.ws.bind), (None, None));
}

#[test]
fn unknown_names_in_the_environment_and_set_are_errors() {
    let error = load("", &[("ROOKERY__LISTENERS__TPC__BIND", "127.0.0.1:1")], &[]).expect_err("refused");
    let text = error.to_string();
    assert!(text.contains("environment variable ROOKERY__LISTENERS__TPC__BIND"), "{text}");
    assert!(text.contains("did you mean ROOKERY__LISTENERS__TCP__BIND?"), "{text}");
    let text = load("", &[], &["node.data-dir=/x"]).expect_err("refused").to_string();
    assert!(text.contains("--set node.data-dir") && text.contains("did you mean node.data_dir?"), "{text}");
}

#[test]
fn a_bind_beyond_loopback_without_authentication_names_the_fixes() {
    for bind in ["0.0.0.0:1883", "[::]:1883", "192.0.2.1:1883"] {
        let error = load("", &[], &[&format!("listeners.tcp.bind={bind}")]).expect_err("refused");
        let text = error.to_string();
        assert!(
            text.contains("listeners.tcp.bind") && text.contains("auth.allow_anonymous = true"),
            "{text}"
        );
        assert!(text.contains(":1883\""), "{text}");
    }
    load("", &[], &["listeners.tcp.bind=0.0.0.0:1883", "auth.allow_anonymous=true"]).expect("said so");
    load("", &[], &["listeners.tcp.bind=[::1]:1883"]).expect("loopback");
    load("", &[], &["listeners.tcp.bind=[::ffff:127.0.0.1]:1883"]).expect("loopback");
    load("", &[], &["api.bind=0.0.0.0:1"]).expect_err("the API too");
    load("", &[], &["cluster.bind=192.0.2.1:1"]).expect("peers prove that they know the secret");
}

#[test]
fn listening_on_all_addresses_needs_an_advertised_one() {
    let set = ["cluster.bind=0.0.0.0:17883", "auth.allow_anonymous=true"];
    let text = load("", &[], &set).expect_err("refused").to_string();
    assert!(text.contains("cluster.advertise"), "{text}");
    let config = load("", &[], &[set[0], set[1], "cluster.advertise=a.example:17883"]).expect("good");
    assert_eq!(config.advertised_peer().to_string(), "a.example:17883");
    let bound = "0.0.0.0:1883".parse().expect("address");
    assert_eq!(config.advertised(bound).to_string(), "a.example:1883");
}

#[test]
fn timing_must_keep_the_promise() {
    load("", &[], &["cluster.election_max_ms=925"]).expect("just fits");
    let text = load("", &[], &["cluster.election_max_ms=926"]).expect_err("refused").to_string();
    assert!(text.contains("3002 ms"), "{text}");
    let slow = ["cluster.heartbeat_ms=150", "cluster.election_min_ms=600", "cluster.election_max_ms=1200"];
    load("", &[], &slow).expect_err("slower than promised");
    load("", &[], &[slow[0], slow[1], slow[2], "cluster.failover_promise_ms=5000"]).expect("said so");
    load("", &[], &["cluster.election_min_ms=100"]).expect_err("two heartbeats only");
    load("", &[], &["cluster.election_min_ms=400"]).expect_err("no room for randomness");
}

#[test]
fn clients_that_must_authenticate_may_come_from_anywhere() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    let users = format!("auth.scram_users_file={}", file.path().display());
    let loaded = load("", &[], &["listeners.tcp.bind=0.0.0.0:1883", "auth.required=true", &users]);
    loaded.expect("nobody is let in unseen");
    let open = load("", &[], &["listeners.ws.bind=0.0.0.0:8083", &users]).expect_err("refused").to_string();
    assert!(open.contains("auth.required = true"), "{open}");
    let api = load("", &[], &["api.bind=0.0.0.0:1", "auth.required=true", &users]).expect_err("refused");
    assert!(!api.to_string().contains("auth.required"), "the API does not authenticate: {api}");
    load("", &[], &["listeners.tcp.bind=0.0.0.0:1883", "auth.required=true"]).expect("users can be added");
}

#[test]
fn a_wrong_file_of_users_is_named_with_its_line() {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), "# users\nann:secret\n").expect("written");
    let path = file.path().display();
    let text = load("", &[], &[&format!("auth.scram_users_file={path}")]).expect_err("refused").to_string();
    assert!(text.starts_with(&format!("{path}:2: expected NAME:SCRAM-SHA-256$")), "{text}");
    assert!(!text.contains("secret"), "{text}");
    let text = load("", &[], &["auth.scram_users_file=/nonexistent"]).expect_err("refused").to_string();
    assert!(text.starts_with("auth.scram_users_file: /nonexistent: "), "{text}");
}

#[test]
fn listeners_may_not_share_a_port() {
    let text = load("", &[], &["listeners.ws.bind=127.0.0.1:1883"]).expect_err("refused").to_string();
    assert!(text.contains("same port as listeners.tcp.bind"), "{text}");
    load("", &[], &["listeners.ws.bind=127.0.0.1:0", "listeners.tcp.bind=127.0.0.1:0"]).expect("any ports");
}

#[test]
fn the_example_says_what_the_defaults_say() {
    let example = Config::example();
    assert_eq!(from_file(&example).expect("good"), Config::default());
    // The same with every key spelled out.
    let spelled: String = example
        .lines()
        .map(|line| {
            line.strip_prefix('#').filter(|l| l.starts_with(|c: char| c.is_ascii_lowercase())).unwrap_or(line)
        })
        .flat_map(|line| [line, "\n"])
        .collect();
    assert_eq!(from_file(&spelled).expect("good"), Config::default());
    for path in Config::default().key_paths() {
        let key = path.rsplit('.').next().expect("a name");
        assert!(spelled.contains(&format!("\n{key} = ")), "{path} is missing");
    }
}

/// Key, default, lowest and highest value of a section, as a page of the documentation has them.
fn documented(page: &str, section: &str) -> Vec<[String; 4]> {
    let begin = format!("| `{section}.");
    let rows = page.lines().filter_map(|line| line.strip_prefix(&begin));
    rows.map(|row| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let plain = |cell: &str| cell.replace(',', "");
        let (low, high) = cells[2].split_once(" to ").expect("LOW to HIGH");
        [cells[0].trim_end_matches('`').to_owned(), plain(cells[1]), plain(low), plain(high)]
    })
    .collect()
}

#[test]
fn pages_about_limits_say_what_is_so() {
    for (section, page) in [
        ("limits", include_str!("../../../docs/limits.md")),
        ("drain", include_str!("../../../docs/operations.md")),
    ] {
        let config = Config::default();
        let keys = config.section(section).expect("a section").keys();
        let documented = documented(page, section);
        let names: Vec<_> = documented.iter().map(|[name, ..]| name.as_str()).collect();
        assert_eq!(names, keys.iter().map(|key| key.name).collect::<Vec<_>>());
        for (key, [name, default, low, high]) in keys.iter().zip(&documented) {
            assert_eq!(&key.value, default, "{name}");
            let set = |value: i128| load("", &[], &[&format!("{section}.{name}={value}")]);
            let [low, high]: [i128; 2] = [low, high].map(|n| n.parse().expect("a number"));
            for good in [low, high] {
                set(good).unwrap_or_else(|e| panic!("{name} = {good}: {e}"));
            }
            for bad in [low - 1, high + 1] {
                assert!(set(bad).is_err(), "{name} = {bad} is out of bounds");
            }
        }
    }
}

#[test]
fn a_missing_file_is_an_error() {
    let path = PathBuf::from("/nonexistent/rookery.toml");
    let text = Config::load(Some(&path), std::iter::empty(), &[]).expect_err("refused").to_string();
    assert!(text.starts_with("/nonexistent/rookery.toml: "), "{text}");
}

#[test]
fn authenticators_that_cannot_work_are_named_with_their_key() {
    let dir = tempfile::tempdir().expect("a directory");
    let secret = dir.path().join("secret");
    std::fs::write(&secret, "x".repeat(32)).expect("written");
    let short = dir.path().join("short");
    std::fs::write(&short, "hunter2").expect("written");
    let (secret, short) = (secret.display(), short.display());
    for (lines, place, what) in [
        (format!("[auth.jwt]\nsecret_file = \"{short}\""), "auth.jwt.secret_file: ", "holds 7 bytes"),
        (
            format!("[auth.jwt]\nsecret_file = \"{secret}\"\nalgorithms = [\"ES256\"]"),
            "auth.jwt.algorithms: ",
            "ES256 cannot be used",
        ),
        (
            format!("[auth.jwt]\nsecret_file = \"{secret}\"\njwks_url = \"https://a/\""),
            "auth.jwt.jwks_url: ",
            "both set",
        ),
        (
            "[auth.http]\nurl = \"http://localhost/\"\nheader_file = \"/nonexistent\"".to_owned(),
            "auth.http.header_file: ",
            "/nonexistent: ",
        ),
    ] {
        let text = from_file(&lines).expect_err("refused").to_string();
        assert!(text.starts_with(place) && text.contains(what) && !text.contains("hunter2"), "{text}");
    }
    for (lines, what) in [
        ("[auth.jwt]\nalgorithms = [\"none\"]", "expected an algorithm such as RS256, not \"none\""),
        ("[auth.jwt]\nverify = [\"sub\"]", "expected FIELD=CLAIM"),
        ("[auth.jwt]\nfrom = \"header\"", "expected one of: password, username"),
        ("[auth.jwt]\nusername_claim = \"\"", "must not be empty"),
        ("[auth.jwt]\njwks_url = \"ftp://a/\"", "expected a URL"),
        ("[auth.http]\nurl = \"https://u:p@a/\"", "must not hold a user or a password"),
    ] {
        let (line, text) = problem(lines);
        assert!(line == 2 && text.contains(what), "{line} {text}");
    }
    let config = load(
        "[auth.http]\nurl = \"http://localhost/\"\n",
        &[
            ("ROOKERY__AUTH__JWT__SECRET_FILE", &secret.to_string()),
            ("ROOKERY__AUTH__JWT__ALGORITHMS", "HS256"),
        ],
        &["auth.jwt.verify=client_id=sub,username=name", "auth.chain=jwt,http"],
    )
    .expect("good");
    assert!(config.auth_jwt.is_set() && config.auth_jwt.verify.len() == 2);
    assert!(!Config::default().auth_jwt.is_set());
}

#[test]
fn secrets_are_not_shown_and_not_taken_from_arguments() {
    let secret = "hunter2hunter2hunter2hunter2hunter2";
    let variables = [("ROOKERY__AUTH__JWT__SECRET", secret), ("ROOKERY__AUTH__HTTP__HEADER", secret)];
    let config = load("", &variables, &["auth.chain=jwt"]).expect("good");
    assert!(config.auth_jwt.is_set());
    assert!(!format!("{config:?}").contains("hunter2"));
    for section in [config.section("auth.jwt"), config.section("auth.http")] {
        let values: Vec<_> = section.expect("there").keys().into_iter().map(|key| key.value).collect();
        assert!(!values.concat().contains("hunter2"), "{values:?}");
    }
    for key in ["auth.jwt.secret", "auth.http.header"] {
        let error = load("", &[], &[&format!("{key}={secret}")]).expect_err("refused").to_string();
        assert!(error.starts_with(&format!("--set {key}: is a secret")), "{error}");
        assert!(!error.contains("hunter2"), "{error}");
    }
    let short = load("", &[("ROOKERY__AUTH__JWT__SECRET", "hunter2")], &[]).expect_err("refused").to_string();
    assert!(short.starts_with("auth.jwt.secret: holds 7 bytes") && !short.contains("hunter2"), "{short}");
}

#[test]
fn who_comes_through_a_proxy_comes_from_elsewhere() {
    let behind = ["listeners.tcp.proxy_protocol=true", "listeners.tcp.proxy_trusted=127.0.0.1"];
    let open = load("", &[], &behind).expect_err("refused").to_string();
    assert!(open.contains("through a proxy") && open.contains("auth.required = true"), "{open}");
    load("", &[], &[behind[0], behind[1], "auth.required=true"]).expect("asked who they are");
}

#[test]
fn what_is_set_up_is_asked() {
    let text = load("", &[], &["auth.chain=jwt"]).expect_err("refused").to_string();
    assert!(text.contains("auth.chain") && text.contains("[auth.jwt]"), "{text}");
    let text = load("", &[], &["auth.http.url=http://127.0.0.1:1/x"]).expect_err("refused").to_string();
    assert!(text.contains("does not name http"), "{text}");
    load("", &[], &["auth.http.url=http://127.0.0.1:1/x", "auth.chain=users,http"]).expect("asked");
    let text = load("", &[], &["auth.chain=users,users"]).expect_err("refused").to_string();
    assert!(text.contains("twice"), "{text}");
    let text =
        load("", &[], &["auth.required=true", "auth.chain=certificate"]).expect_err("refused").to_string();
    assert!(text.contains("lets nobody in"), "{text}");
}
