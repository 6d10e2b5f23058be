//! Pings and pongs: Autobahn's group 2.

use std::time::{Duration, Instant};

use cluster_tests::fresh;
use cluster_tests::mqtt::{Options, Packet};
use cluster_tests::wait::eventually;
use cluster_tests::websocket::{Frame, RawSocket, opcode};

use super::{PINGREQ, alone, connected};

#[test]
fn pings_are_answered_with_their_payload_and_pongs_ignored() {
    let cluster = alone();
    let mut socket = connected(&cluster);
    for payload in [&b""[..], b"Hello", &[0x00, 0xff, 0xfe, 0xfd, 0xfc, 0xfb, 0x00, 0xff], &[0xfe; 125]] {
        socket.send(&Frame::ping(payload));
        assert_eq!(socket.pong(), payload);
        socket.write_in(&Frame::ping(payload).bytes(), 1);
        assert_eq!(socket.pong(), payload);
        socket.send(&Frame::pong(payload));
    }
    let pings: Vec<Frame> = (0..10).map(|i| Frame::ping(format!("payload-{i}"))).collect();
    socket.send_all(&pings);
    pings.iter().for_each(|ping| assert_eq!(socket.pong(), ping.payload));
    socket.write_in(&pings.iter().flat_map(Frame::bytes).collect::<Vec<_>>(), 1);
    pings.iter().for_each(|ping| assert_eq!(socket.pong(), ping.payload));
    // What was answered to the pongs would come before this.
    socket.send_all(&[Frame::pong("unasked"), Frame::ping("last"), Frame::binary(PINGREQ)]);
    assert_eq!(socket.pong(), b"last");
    assert_eq!(socket.packet(), Packet::PingResp);
}

#[test]
fn pings_do_not_keep_an_mqtt_client_alive() {
    let cluster = alone();
    let options = Options { keep_alive_s: 1, ..Options::v5(&fresh("silent")) };
    let mut socket = RawSocket::connect(cluster.ws(1), &options);
    let start = Instant::now();
    let last = eventually("the keep-alive has run out", Duration::from_secs(30), || {
        socket.send(&Frame::ping("still here"));
        let frame = socket.frame().expect("a Close frame before the end");
        (frame.opcode() != opcode::PONG).then_some(frame)
    });
    assert!(start.elapsed() >= Duration::from_millis(1_400), "{:?}", start.elapsed());
    assert_eq!(last.opcode(), opcode::BINARY, "DISCONNECT: {last:x?}");
    assert_eq!(last.payload[..3], [0xe0, last.payload.len() as u8 - 2, 0x8d]);
    assert_eq!(socket.ending().status(), Some(1008));
}
