//! Data frames: Autobahn's groups 1, 3, 4, 5, 9 and 10.

use cluster_tests::mqtt::Packet;
use cluster_tests::websocket::{Form, Frame, RawSocket, opcode};

use super::{PINGREQ, alone, connected, echo, message_of};

const PACKET_MAX: usize = 1 << 20;

#[test]
fn packets_in_frames_of_every_form_of_length_and_in_any_pieces() {
    let cluster = alone();
    let mut socket = echo(&cluster, "t/1");
    for length in [16, 125, 126, 127, 128, 65_535, 65_536, PACKET_MAX] {
        let (message, packet) = message_of("t/1", length);
        let frame = Frame::binary(packet).bytes();
        let least = if length > 128 { 997 } else { 1 };
        for piece in [frame.len(), 2_999, least] {
            socket.write_in(&frame, piece);
            assert_eq!(socket.packet(), Packet::Publish(message.clone()), "{length} in writes of {piece}");
        }
    }
    for mask in [[0; 4], [0xff; 4], [1, 0, 0, 0]] {
        socket.send(&Frame::binary(PINGREQ).masked(mask));
        assert_eq!(socket.packet(), Packet::PingResp, "{mask:?}");
    }
}

#[test]
fn packets_and_frames_need_not_align() {
    let cluster = alone();
    let mut socket = echo(&cluster, "t/2");
    let (first, one) = message_of("t/2", 300);
    let (second, two) = message_of("t/2", 40);
    // Several in one frame.
    socket.send(&Frame::binary([&one[..], &two, &PINGREQ].concat()));
    let expect = |socket: &mut RawSocket| {
        assert_eq!(socket.packet(), Packet::Publish(first.clone()));
        assert_eq!(socket.packet(), Packet::Publish(second.clone()));
        assert_eq!(socket.packet(), Packet::PingResp);
    };
    expect(&mut socket);
    // Each over several frames, with empty ones between, all in one write.
    let all = [&one[..], &two, &PINGREQ].concat();
    for size in [1, 2, 7, 120, 299, 301] {
        let frames: Vec<Frame> =
            all.chunks(size).flat_map(|piece| [Frame::binary(piece), Frame::binary([])]).collect();
        socket.send_all(&frames);
        expect(&mut socket);
    }
}

#[test]
fn fragments_of_every_size_with_pings_between() {
    let cluster = alone();
    let mut socket = echo(&cluster, "t/3");
    let (message, packet) = message_of("t/3", 700);
    for size in (1..=20).chain([64, 125, 126, 699]) {
        socket.send_all(&Frame::fragments(&packet, size));
        assert_eq!(socket.packet(), Packet::Publish(message.clone()), "fragments of {size}");
    }
    // Pings are answered at once, in the middle of a message; fragments may be empty.
    let fragments = Frame::fragments(&packet, 233);
    for (i, fragment) in fragments.iter().enumerate() {
        socket.send(fragment);
        if i + 1 < fragments.len() {
            socket.send(&Frame::ping([i as u8]));
            assert_eq!(socket.pong(), [i as u8]);
            socket.send(&Frame::new(opcode::CONTINUATION, []).unfinished());
        }
    }
    assert_eq!(socket.packet(), Packet::Publish(message.clone()));
    let mut chopped: Vec<u8> = Frame::fragments(&packet, 50).iter().flat_map(Frame::bytes).collect();
    chopped.extend(Frame::ping("end").bytes());
    socket.write_in(&chopped, 1);
    assert_eq!(socket.packet(), Packet::Publish(message));
    assert_eq!(socket.pong(), b"end");
}

#[test]
fn large_messages_in_fragments_and_writes_of_many_sizes() {
    let cluster = alone();
    let mut socket = echo(&cluster, "t/4");
    let (message, packet) = message_of("t/4", PACKET_MAX);
    for size in [64, 256, 1 << 10, 4 << 10, 16 << 10, 64 << 10, 256 << 10] {
        socket.send_all(&Frame::fragments(&packet, size));
        assert_eq!(socket.packet(), Packet::Publish(message.clone()), "fragments of {size}");
        socket.write_in(&Frame::binary(&packet).bytes(), size);
        assert_eq!(socket.packet(), Packet::Publish(message.clone()), "writes of {size}");
    }
}

/// What ends a connection, with the status it ends with. Only the last frame is wrong.
fn violations() -> Vec<(&'static str, u16, Vec<u8>)> {
    let ping = || Frame::binary(PINGREQ);
    let begun = || ping().unfinished().bytes();
    let mut cases = vec![
        ("a text frame", 1003, Frame::new(opcode::TEXT, "hello").bytes()),
        ("an empty text frame", 1003, Frame::new(opcode::TEXT, "").bytes()),
        ("a fragment of text", 1003, Frame::new(opcode::TEXT, "hello").unfinished().bytes()),
        ("a frame without a mask", 1002, ping().unmasked().bytes()),
        ("an empty frame without a mask", 1002, Frame::binary([]).unmasked().bytes()),
        ("a ping without a mask", 1002, Frame::ping("x").unmasked().bytes()),
        ("a length of 2 in 16 bits", 1002, ping().in_form(Form::Bits16).bytes()),
        ("a length of 2 in 64 bits", 1002, ping().in_form(Form::Bits64).bytes()),
        ("a length of 125 in 16 bits", 1002, Frame::binary([0; 125]).in_form(Form::Bits16).bytes()),
        ("a length of 65535 in 64 bits", 1002, Frame::binary([0; 65_535]).in_form(Form::Bits64).bytes()),
        ("a length with its top bit", 1002, vec![0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 1]),
        ("a continuation of nothing", 1002, Frame::new(opcode::CONTINUATION, "x").bytes()),
        ("a fragment of nothing", 1002, Frame::new(opcode::CONTINUATION, "x").unfinished().bytes()),
        ("a message in a message", 1002, [begun(), ping().bytes()].concat()),
        ("text in a message", 1002, [begun(), Frame::new(opcode::TEXT, "x").bytes()].concat()),
        ("a message begun in a message", 1002, [begun(), begun()].concat()),
        (
            "a continuation of what is whole",
            1002,
            [Frame::fragments(&PINGREQ, 1).iter().flat_map(Frame::bytes).collect(), vec![0x80, 0x80]]
                .concat(),
        ),
        ("a fragmented ping", 1002, Frame::ping("x").unfinished().bytes()),
        ("a fragmented pong", 1002, Frame::pong("x").unfinished().bytes()),
        ("a fragmented close", 1002, Frame::close(1000, "").unfinished().bytes()),
        ("a ping of 126 bytes", 1002, Frame::ping([0xfe; 126]).bytes()),
        ("a pong of 126 bytes", 1002, Frame::pong([0xfe; 126]).bytes()),
        // The header alone has to do: nothing of the payload is sent.
        ("a frame above the limit", 1009, vec![0x82, 0xff, 0, 0, 0, 0, 0, 0x20, 0, 0]),
        ("a frame of 2^62 bytes", 1009, vec![0x82, 0xff, 0x40, 0, 0, 0, 0, 0, 0, 0]),
        ("fragments above the limit", 1009, [begun(), vec![0x00, 0xff, 0, 0, 0, 0, 0, 0x11, 0, 0]].concat()),
    ];
    for bits in 1..=7 {
        cases.push(("reserved bits", 1002, ping().reserved(bits).bytes()));
        cases.push(("reserved bits of a ping", 1002, Frame::ping("x").reserved(bits).bytes()));
    }
    for code in (3..=7).chain(11..=15) {
        cases.push(("a reserved opcode", 1002, Frame::new(code, "").bytes()));
        cases.push(("a reserved opcode with payload", 1002, Frame::new(code, "x").bytes()));
    }
    cases
}

#[test]
fn what_no_client_may_send() {
    let cluster = alone();
    for (what, status, bytes) in violations() {
        for piece in [bytes.len(), 1] {
            let mut socket = connected(&cluster);
            // Frames before the wrong one count, those after it do not.
            socket.send(&Frame::ping("before"));
            assert_eq!(socket.pong(), b"before");
            if piece == 1 && bytes.len() < 1000 {
                socket.write_in(&bytes, 1);
            } else {
                socket.write([&bytes[..], &Frame::ping("after").bytes()].concat());
            }
            let ending = socket.ending();
            assert_eq!(ending.status(), Some(status), "{what}: {bytes:x?} in pieces of {piece}: {ending:x?}");
            assert_eq!(ending.pongs, 0, "{what}: {ending:x?}");
        }
    }
    // Before CONNECT too.
    let mut socket = RawSocket::open(cluster.ws(1));
    socket.send(&Frame::new(opcode::TEXT, "hello"));
    assert_eq!(socket.ending().status(), Some(1003));
    assert!(cluster.metric(1, "rookery_protocol_errors_total") > 0.0);
    connected(&cluster);
}
