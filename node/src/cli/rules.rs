//! `rookery rules …` and `rookery acl …`

use serde_json::json;

use super::args::{AclCommand, Format, RulesCommand};
use super::client::Api;
use super::exit::{Exit, Failure};
use super::{input, out};
use crate::admin::settings::{CheckRequest, Checked, RuleList, RulesRequest};
use crate::auth::{Rule, mosquitto};

const PATH: &str = "/api/v1/rules";

pub async fn run(command: RulesCommand, format: Format) -> Result<(), Failure> {
    match command {
        RulesCommand::Ls(api) => {
            let list: RuleList = Api::new(api.api).get(PATH).await?;
            out::show(format, &list, table)
        }
        RulesCommand::Set { api, file } => {
            let text = input::text(&file)?;
            let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
            let rules = lines.map(str::to_owned).collect();
            set(&Api::new(api.api), rules, None, format).await
        }
        RulesCommand::Add { api, at, rule } => {
            let rule = parsed(&rule)?;
            let api = Api::new(api.api);
            let RuleList { revision, mut rules } = api.get(PATH).await?;
            let at = at.map_or(rules.len(), |at| at - 1);
            if at > rules.len() {
                return Err(none_of_that_number(at + 1, rules.len()));
            }
            rules.insert(at, rule);
            set(&api, rules, Some(revision), format).await
        }
        RulesCommand::Rm { api, number } => {
            let api = Api::new(api.api);
            let RuleList { revision, mut rules } = api.get(PATH).await?;
            if number > rules.len() {
                return Err(none_of_that_number(number, rules.len()));
            }
            rules.remove(number - 1);
            set(&api, rules, Some(revision), format).await
        }
        RulesCommand::Import { api, file, dry_run } => {
            let rules = mosquitto::rules(&input::text(&file)?)
                .map_err(|(line, what)| input::wrong(&file, line, &what))?;
            let rules: Vec<String> = rules.iter().map(ToString::to_string).collect();
            if dry_run {
                return out::show(format, &json!({ "rules": rules }), |_| rules.join("\n") + "\n");
            }
            set(&Api::new(api.api), rules, None, format).await
        }
    }
}

pub async fn run_acl(command: AclCommand, format: Format) -> Result<(), Failure> {
    let AclCommand::Check { api, client_id, user, common_name, address, qos, retain, action, topic } =
        command;
    let action = action.name().to_owned();
    let request = CheckRequest { client_id, user, common_name, address, action, topic, qos, retain };
    let checked: Checked = Api::new(api.api).post("/api/v1/acl/check", &request).await?;
    out::show(format, &checked, |checked| {
        let verdict = if checked.allowed { "allowed" } else { "denied" };
        let by = checked
            .rule
            .as_deref()
            .map_or("no rule says anything of it".to_owned(), |rule| format!("by: {rule}"));
        format!("{verdict}; {by}\n")
    })?;
    if checked.allowed { Ok(()) } else { Err(Failure::new(Exit::Unauthorized, "not allowed")) }
}

/// Of one argument with the whole rule, or of an argument for each word.
fn parsed(words: &[String]) -> Result<String, Failure> {
    let rule: Result<Rule, _> = match words {
        [line] => line.parse(),
        words => Rule::from_words(words),
    };
    Ok(rule.map_err(|error| Failure::new(Exit::Usage, error.to_string()))?.to_string())
}

fn none_of_that_number(number: usize, count: usize) -> Failure {
    Failure::new(Exit::NotFound, format!("there is no rule number {number}, but {count}"))
}

async fn set(api: &Api, rules: Vec<String>, revision: Option<u64>, format: Format) -> Result<(), Failure> {
    let list: RuleList = api.put(PATH, &RulesRequest { rules, revision }).await?;
    out::show(format, &list, table)
}

fn table(list: &RuleList) -> String {
    let rows = list.rules.iter().zip(1..).map(|(rule, number)| [number.to_string(), rule.clone()]);
    out::table(["#", "RULE"], rows)
}
