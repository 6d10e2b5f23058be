//! What a thousand clients notice of strangers who want all of a node's attention, and what is left of
//! these in its memory. Quiet and attacked times alternate, so that whatever else the machine does
//! falls into both; the attackers get idle cores only, since these are the nodes' too.

use std::fmt::Write as _;
use std::io::{Read, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustls::ClientConnection;
use rustls::pki_types::ServerName;
use socket2::{Domain, Socket, Type};

use super::crowd::{has_ended, push};
use super::{Crowd, Process, malformed};
use crate::cluster::Cluster;
use crate::load::{Steady, Window, low_priority, own_thread};
use crate::mqtt::{Options, connect};
use crate::{fresh, http, tls, wait};

/// Connections that never send anything.
const HALF_OPEN: usize = 10_000;
/// And as many more a second, once they are there.
const HALF_OPEN_PER_S: f64 = 500.0;
/// Looks at who was ended, until all were looked at: those who come from everywhere do not hang up as one.
const SIFTS: usize = 100;
/// Clients that send a byte a second, on each listener.
const SLOW_PER_LISTENER: usize = 500;
const SLOW_BYTE: Duration = Duration::from_secs(1);
/// Threads that begin TLS handshakes one after the other.
const SHAKERS: usize = 4;
/// Log-ins with wrong passwords, each from another address than the one before, so that none is
/// passed over because too many have failed.
const GUESSES_PER_S: f64 = 200.0;
/// By how much slower the slowest hundredth may be.
const P99_FACTOR: f64 = 2.0;
/// What the node may have in memory beyond what it had, as a part of that.
const MEMORY_PART: f64 = 0.1;
/// Memory is taken for settled when it has not fallen for so long.
const SETTLED: Duration = Duration::from_secs(5);
const QUIET: Duration = Duration::from_secs(3);
const RECOVERS: Duration = Duration::from_secs(60);
/// The configuration of the nodes.
pub const TOML: &str = "[auth]\nno_match = \"allow\"\n[limits]\nconnect_timeout_ms = 5000\n";

/// How much.
#[derive(Clone, Copy, Debug)]
pub struct Siege {
    pub good_clients: usize,
    pub messages_per_s: u32,
    /// Quiet and attacked times of each kind.
    pub rounds: usize,
    /// How long an attack goes on each time.
    pub attacked: Duration,
}

/// What came of one kind of attack.
#[derive(Debug)]
pub struct Endured {
    what: &'static str,
    quiet: Window,
    attacked: Window,
    /// What the attackers opened, altogether.
    opened: u64,
    /// Of the attacked node, kB.
    before_kb: u64,
    peak_kb: u64,
    after_kb: u64,
}

/// Whom, with what in hand, and until when.
struct Attack<'a> {
    listeners: [SocketAddr; 4],
    stop: &'a AtomicBool,
    opened: &'a AtomicU64,
}

type Attacker = fn(&Attack<'_>);

/// Attacks the first node in every way, one after the other.
///
/// # Panics
/// When a good client loses its connection or a message.
pub fn run(cluster: &mut Cluster, siege: Siege) -> Vec<Endured> {
    let (ports, api) = (cluster.node(1).ports, cluster.api(1));
    let listeners = [ports.mqtt, ports.ws, ports.tls, ports.wss];
    let process = Process(cluster.pid(1));
    // Somebody to guess the password of.
    let user = format!("{{\"password\": \"{}\"}}", fresh("secret"));
    let (status, said) = http::put(api, "/api/v1/users/ann", &user).expect("an answer");
    assert_eq!(status, 200, "{said}");
    let steady =
        Steady::start(&[ports.mqtt], siege.good_clients, siege.messages_per_s).expect("they connect");
    let attacks: [(&'static str, Attacker); 4] = [
        ("10,000 half-open connections, and more", half_open),
        ("slow clients on every listener", slow),
        ("TLS handshakes without an end", handshakes),
        ("200 wrong passwords a second", guesses),
    ];
    let (_, before_kb) = steady.during(|| settled_kb(process));
    let target = Target { listeners, api, process, before_kb };
    attacks.map(|(what, attacker)| endure(&steady, what, attacker, &target, siege)).into()
}

/// A node, and what it had in memory before anybody attacked it.
struct Target {
    listeners: [SocketAddr; 4],
    api: SocketAddr,
    process: Process,
    before_kb: u64,
}

/// What it has in memory when that does not fall any more.
fn settled_kb(process: Process) -> u64 {
    let (mut least_kb, mut since) = (process.memory_kb(), Instant::now());
    while since.elapsed() < SETTLED {
        wait::pass(Duration::from_millis(100));
        let kb = process.memory_kb();
        if kb < least_kb - least_kb / 100 {
            (least_kb, since) = (kb, Instant::now());
        }
    }
    process.memory_kb()
}

/// Tells the attackers to stop, also when something panics meanwhile.
struct Stops<'a>(&'a AtomicBool);

impl Drop for Stops<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn endure(steady: &Steady, what: &'static str, attacker: Attacker, target: &Target, siege: Siege) -> Endured {
    let &Target { listeners, api, process, before_kb } = target;
    let (mut quiet, mut attacked) = (Window::default(), Window::default());
    let (opened, mut peak_kb) = (AtomicU64::new(0), process.memory_kb());
    for _ in 0..siege.rounds {
        quiet = quiet.and(steady.during(|| wait::pass(QUIET)).0);
        let stop = AtomicBool::new(false);
        let attack = Attack { listeners, stop: &stop, opened: &opened };
        std::thread::scope(|scope| {
            let attackers = scope.spawn(|| {
                low_priority(own_thread());
                attacker(&attack);
            });
            let stops = Stops(&stop);
            let during = steady.during(|| {
                let end = Instant::now() + siege.attacked;
                while Instant::now() < end {
                    peak_kb = peak_kb.max(process.memory_kb());
                    wait::pass(Duration::from_millis(100));
                }
            });
            attacked = std::mem::take(&mut attacked).and(during.0);
            drop(stops);
            attackers.join().expect("they end when they are told to");
        });
        let gone = wait::within(RECOVERS, || {
            let (_, text) = http::get(api, "/metrics").ok()?;
            (http::metric(&text, "rookery_handshakes") == Some(0.0)).then_some(())
        });
        assert!(gone.is_some(), "{what}: handshakes are left over");
    }
    let bound_kb = before_kb + (before_kb as f64 * MEMORY_PART) as u64;
    // What is above it then is told.
    let _ = wait::within(RECOVERS, || (process.memory_kb() <= bound_kb).then_some(()));
    let after_kb = process.memory_kb();
    assert!(opened.load(Ordering::Relaxed) > 0, "{what}: nobody attacked");
    Endured { what, quiet, attacked, opened: opened.into_inner(), before_kb, peak_kb, after_kb }
}

fn half_open(attack: &Attack<'_>) {
    let mut crowd = Crowd::default();
    let mut listeners = attack.listeners.iter().cycle().copied();
    let mut open = |crowd: &mut Crowd| {
        // A full backlog refuses for a moment.
        if listeners.next().is_some_and(|to| crowd.open(to).is_ok()) {
            attack.opened.fetch_add(1, Ordering::Relaxed);
        }
    };
    while crowd.members.len() < HALF_OPEN && !attack.stop.load(Ordering::Relaxed) {
        open(&mut crowd);
    }
    let (began, mut more) = (Instant::now(), 0);
    while !attack.stop.load(Ordering::Relaxed) {
        while f64::from(more) < began.elapsed().as_secs_f64() * HALF_OPEN_PER_S {
            open(&mut crowd);
            more += 1;
        }
        crowd.sift_part(SIFTS);
        wait::pause();
    }
}

fn slow(attack: &Attack<'_>) {
    struct Slow {
        stream: TcpStream,
        script: Arc<[u8]>,
        sent: usize,
    }
    let hello = client_hello();
    let upgrade: Arc<[u8]> = malformed::upgrade().into();
    let long = Options { username: Some("x".repeat(500)), ..Options::v5(&fresh("slow")) };
    let packet: Arc<[u8]> = connect(&long).into();
    let scripts = [packet, upgrade, hello.clone(), hello];
    let mut crowd = Crowd::default();
    let mut slow: Vec<Slow> = Vec::new();
    while !attack.stop.load(Ordering::Relaxed) {
        while slow.len() < 4 * SLOW_PER_LISTENER && !attack.stop.load(Ordering::Relaxed) {
            let at = slow.len() % 4;
            if crowd.open(attack.listeners[at]).is_err() {
                break;
            }
            attack.opened.fetch_add(1, Ordering::Relaxed);
            let stream = crowd.members.pop().expect("just opened");
            slow.push(Slow { stream, script: scripts[at].clone(), sent: 0 });
        }
        // All of them within the time, some at a time.
        let portion = (slow.len() / 20).max(1);
        let mut next = 0;
        while next < slow.len() && !attack.stop.load(Ordering::Relaxed) {
            for client in slow.iter_mut().skip(next).take(portion) {
                let byte = client.script.get(client.sent).copied().unwrap_or(b'x');
                client.sent += 1;
                push(&mut client.stream, &[byte]);
            }
            next += portion;
            wait::pass(SLOW_BYTE / 20);
        }
        slow.retain_mut(|client| !has_ended(&mut client.stream));
    }
}

fn handshakes(attack: &Attack<'_>) {
    let hello = client_hello();
    std::thread::scope(|scope| {
        for shaker in 0..SHAKERS {
            let hello = &hello;
            scope.spawn(move || {
                low_priority(own_thread());
                let to = attack.listeners[2 + shaker % 2];
                while !attack.stop.load(Ordering::Relaxed) {
                    let Ok(mut tcp) = TcpStream::connect(to) else { continue };
                    attack.opened.fetch_add(1, Ordering::Relaxed);
                    // Costs the node a key exchange and a signature, and the client nothing.
                    let _ = tcp.set_read_timeout(Some(Duration::from_secs(1)));
                    let _ = tcp.write_all(hello).and_then(|()| tcp.read_exact(&mut [0; 64]));
                }
            });
        }
    });
}

fn guesses(attack: &Attack<'_>) {
    let mut crowd = Crowd::default();
    let (began, mut made) = (Instant::now(), 0u32);
    while !attack.stop.load(Ordering::Relaxed) {
        while f64::from(made) < began.elapsed().as_secs_f64() * GUESSES_PER_S {
            made += 1;
            let from = Ipv4Addr::from_bits(0x7f10_0000 + made % 0xffff + 1);
            let Ok(mut stream) = dial_from(from, attack.listeners[0]) else { continue };
            let guess = format!("guess {made}");
            let (username, password) = (Some("ann".into()), Some(guess.into()));
            let options = Options { username, password, ..Options::v5(&fresh("guess")) };
            push(&mut stream, &connect(&options));
            attack.opened.fetch_add(1, Ordering::Relaxed);
            crowd.members.push(stream);
        }
        crowd.sift_part(SIFTS);
        wait::pause();
    }
}

fn dial_from(from: Ipv4Addr, to: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    socket.bind(&SocketAddr::from((from, 0)).into())?;
    socket.connect_timeout(&to.into(), Duration::from_secs(1))?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

fn client_hello() -> Arc<[u8]> {
    let name = ServerName::try_from("localhost").expect("a name");
    let mut tls = ClientConnection::new(tls::trusting(), name).expect("a client");
    let mut hello = Vec::new();
    while tls.wants_write() {
        tls.write_tls(&mut hello).expect("written");
    }
    hello.into()
}

impl Endured {
    /// How many times slower the slowest hundredth of the good clients' messages was.
    pub fn p99_factor(&self) -> f64 {
        let [attacked, quiet] = [&self.attacked, &self.quiet].map(|w| w.quantile(0.99).as_secs_f64());
        attacked / quiet.max(1e-6)
    }

    /// How much more the node has in memory afterwards, as a part of what it had.
    pub fn kept(&self) -> f64 {
        self.after_kb as f64 / self.before_kb as f64 - 1.0
    }

    /// What is not as it has to be.
    pub fn failures(&self) -> Vec<String> {
        let mut failures = Vec::new();
        if self.p99_factor() > P99_FACTOR {
            failures.push(format!("{}: p99 was {:.2} times the quiet one", self.what, self.p99_factor()));
        }
        failures.extend(self.leftovers());
        failures
    }

    /// As [`failures`](Self::failures), of memory alone.
    pub fn leftovers(&self) -> Option<String> {
        let kept = self.kept();
        (kept > MEMORY_PART).then(|| format!("{}: {:.0} % of memory were kept", self.what, kept * 100.0))
    }
}

/// A row for each.
pub fn table(endured: &[Endured]) -> String {
    let mut table = String::from(
        "| attack | connections opened | quiet: median / p99 | attacked: median / p99 | p99, times | memory before / at most / after | kept |\n\
         |---|---:|---:|---:|---:|---:|---:|\n",
    );
    for row in endured {
        let two = |window: &Window| {
            let [median, high] = [0.5, 0.99].map(|share| window.quantile(share).as_secs_f64() * 1_000.0);
            format!("{median:.2} / {high:.2} ms")
        };
        let mib = |kb: u64| format!("{:.1}", kb as f64 / 1_024.0);
        let _ = writeln!(
            table,
            "| {} | {} | {} | {} | {:.2} | {} / {} / {} MiB | {:.1} % |",
            row.what,
            row.opened,
            two(&row.quiet),
            two(&row.attacked),
            row.p99_factor(),
            mib(row.before_kb),
            mib(row.peak_kb),
            mib(row.after_kb),
            row.kept() * 100.0
        );
    }
    table
}
