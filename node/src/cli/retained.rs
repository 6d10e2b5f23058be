//! `rookery retained …`

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::args::{Format, RetainedCommand};
use super::client::{Api, escape};
use super::exit::{Exit, Failure};
use super::out;
use crate::admin::messages::{RetainedInfo, RetainedMessage, RetainedPage};

/// Messages asked for at a time.
const PAGE: usize = 1_000;

pub async fn run(command: RetainedCommand, format: Format) -> Result<(), Failure> {
    match command {
        RetainedCommand::Ls { api, filter, limit } => {
            let (messages, more) = list(&Api::new(api.api), &filter, limit).await?;
            if more {
                out::say(&format!("only the first {limit} messages are shown; --limit 0 shows all"));
            }
            out::show(format, &messages, |messages| table(messages))
        }
        RetainedCommand::Show { api, topic, raw } => {
            let message: RetainedMessage = Api::new(api.api).get(&path(&topic)).await?;
            let payload = STANDARD
                .decode(&message.payload_base64)
                .map_err(|error| Failure::new(Exit::Error, format!("the payload is no base64: {error}")))?;
            if raw {
                return out::write(&payload);
            }
            out::show(format, &message, |message| describe(message, &payload))
        }
        RetainedCommand::Rm { api, topic } => {
            Api::new(api.api).delete::<()>(&path(&topic)).await?;
            out::say(&format!("nothing is retained on {} any more", out::printable(&topic)));
            out::show(format, &json!({ "removed": topic }), |_| String::new())
        }
    }
}

fn path(topic: &str) -> String {
    format!("/api/v1/retained/{}", escape(topic))
}

/// At most `limit` messages (0: all), and whether there are more.
async fn list(api: &Api, filter: &str, limit: usize) -> Result<(Vec<RetainedInfo>, bool), Failure> {
    let filter = escape(filter);
    let mut messages = Vec::new();
    let mut cursor = String::new();
    loop {
        let wanted = if limit == 0 { PAGE } else { PAGE.min(limit - messages.len()) };
        let path = format!("/api/v1/retained?filter={filter}&limit={wanted}{cursor}");
        let page: RetainedPage = api.get(&path).await?;
        messages.extend(page.messages);
        match page.next {
            None => return Ok((messages, false)),
            Some(_) if limit != 0 && messages.len() >= limit => return Ok((messages, true)),
            Some(next) => cursor = format!("&cursor={}", escape(&next)),
        }
    }
}

fn expiry(message: &RetainedInfo) -> String {
    message.expires_in_s.map_or("never".to_owned(), |seconds| format!("in {seconds} s"))
}

fn table(messages: &[RetainedInfo]) -> String {
    let rows = messages.iter().map(|m| [m.topic.clone(), m.bytes.to_string(), m.qos.to_string(), expiry(m)]);
    out::table(["TOPIC", "BYTES", "QOS", "EXPIRES"], rows)
}

fn describe(message: &RetainedMessage, payload: &[u8]) -> String {
    let info = &message.info;
    let shown = match std::str::from_utf8(payload) {
        Ok(text) => out::printable(text),
        Err(_) => "not text; --raw writes it".to_owned(),
    };
    let mut rows = vec![
        ("topic", out::printable(&info.topic)),
        ("bytes", info.bytes.to_string()),
        ("qos", info.qos.to_string()),
        ("expires", expiry(info)),
        ("publisher", out::printable(&message.publisher)),
        ("content type", message.content_type.as_deref().map_or("-".to_owned(), out::printable)),
    ];
    rows.extend(
        message.user_properties.iter().map(|(name, value)| {
            ("property", format!("{}: {}", out::printable(name), out::printable(value)))
        }),
    );
    rows.push(("payload", shown));
    rows.iter().map(|(name, value)| format!("{name:<14} {value}\n")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_client_says_ends_a_line() {
        let info = RetainedInfo { topic: "a\nb".to_owned(), bytes: 3, qos: 1, expires_in_s: Some(9) };
        assert_eq!(
            table(std::slice::from_ref(&info)),
            "TOPIC  BYTES  QOS  EXPIRES\na\\nb   3      1    in 9 s\n"
        );
        let message = RetainedMessage {
            info,
            content_type: Some("text/\nplain".to_owned()),
            user_properties: vec![("k\n".to_owned(), "v\n".to_owned())],
            ..RetainedMessage::default()
        };
        assert_eq!(describe(&message, b"x\ny").lines().count(), 8);
        assert!(describe(&message, &[0xff]).ends_with("payload        not text; --raw writes it\n"));
    }
}
