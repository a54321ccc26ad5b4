//! One record as Windows renders it to XML (the schema of Windows events), and the line that rules are
//! matched against. Pure.

use roxmltree::{Document, Node};
use watchkeep_shared::wire::policy::EventLogFilter;

/// `WINEVENT_KEYWORD_AUDIT_FAILURE` and `WINEVENT_KEYWORD_AUDIT_SUCCESS`.
const AUDIT_FAILURE: u64 = 0x0010_0000_0000_0000;
const AUDIT_SUCCESS: u64 = 0x0020_0000_0000_0000;

/// What of a record is used.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub(super) provider: String,
    pub(super) id: u32,
    /// 1 (critical) to 5 (verbose); other numbers are a provider's own.
    pub(super) level: u8,
    /// The level in a word.
    pub(super) word: &'static str,
    /// What the provider says to people, or its data if it says nothing.
    pub(super) message: String,
}

impl Record {
    /// `None` for what is no record.
    pub(super) fn parse(xml: &str) -> Option<Self> {
        // Windows writes out whatever bytes a program has logged.
        let is_odd = |c: char| c.is_control() && !matches!(c, '\t' | '\n' | '\r');
        let clean = xml
            .contains(is_odd)
            .then(|| xml.replace(is_odd, "\u{fffd}"));
        let document = Document::parse(clean.as_deref().unwrap_or(xml)).ok()?;
        let event = document.root_element();
        let system = child(event, "System")?;
        let number = |name: &str| text_of(child(system, name)?)?.trim().parse::<u64>().ok();
        let keywords = child(system, "Keywords")
            .and_then(text_of)
            .and_then(|text| {
                let digits = text.trim().strip_prefix("0x")?;
                u64::from_str_radix(digits, 16).ok()
            });
        let level = u8::try_from(number("Level").unwrap_or(0)).unwrap_or(0);
        let (level, word) = level_and_word(level, keywords.unwrap_or(0));
        Some(Self {
            provider: child(system, "Provider")?.attribute("Name")?.to_owned(),
            id: u32::try_from(number("EventID")?).ok()?,
            level,
            word,
            message: message_of(event).unwrap_or_else(|| data_of(event)),
        })
    }

    /// Whether it is one of those that a check asks for.
    pub(super) fn passes(&self, filter: &EventLogFilter) -> bool {
        let is_own = |name: &String| name.eq_ignore_ascii_case(&self.provider);
        (filter.providers.is_empty() || filter.providers.iter().any(is_own))
            && (filter.event_ids.is_empty() || filter.event_ids.contains(&self.id))
            && filter.max_level.is_none_or(|most| self.level <= most)
    }

    /// The text that rules are matched against.
    pub(super) fn line(&self) -> String {
        let Self {
            provider,
            id,
            word,
            message,
            ..
        } = self;
        format!("{word} {provider} {id}: {message}")
    }
}

fn level_and_word(level: u8, keywords: u64) -> (u8, &'static str) {
    match level {
        1 => (1, "Critical"),
        2 => (2, "Error"),
        3 => (3, "Warning"),
        0 if keywords & AUDIT_FAILURE != 0 => (3, "Audit Failure"),
        0 if keywords & AUDIT_SUCCESS != 0 => (4, "Audit Success"),
        0 | 4 => (4, "Information"),
        5 => (5, "Verbose"),
        other => (other, "Other"),
    }
}

fn child<'a, 'input>(node: Node<'a, 'input>, name: &str) -> Option<Node<'a, 'input>> {
    node.children().find(|one| one.tag_name().name() == name)
}

fn text_of<'a>(node: Node<'a, '_>) -> Option<&'a str> {
    node.text().filter(|text| !text.trim().is_empty())
}

fn message_of(event: Node<'_, '_>) -> Option<String> {
    let message = text_of(child(child(event, "RenderingInfo")?, "Message")?)?;
    // Text of Windows, which ends its lines with both.
    Some(message.replace("\r\n", "\n").trim().to_owned())
}

/// What the record carries, as `name=value`.
fn data_of(event: Node<'_, '_>) -> String {
    let mut parts = Vec::new();
    for holder in ["EventData", "UserData"] {
        let Some(holder) = child(event, holder) else {
            continue;
        };
        for node in holder.descendants() {
            let tag = node.tag_name().name();
            let is_leaf = node.is_element() && !node.children().any(|one| one.is_element());
            let Some(text) = text_of(node).filter(|_| is_leaf && tag != "Binary") else {
                continue;
            };
            match node.attribute("Name") {
                Some(name) => parts.push(format!("{name}={text}")),
                None if tag == "Data" => parts.push(text.to_owned()),
                None => parts.push(format!("{tag}={text}")),
            }
        }
    }
    parts.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a Windows Server renders it, with the message.
    const TOLD: &str = "<Event xmlns='http://schemas.microsoft.com/win/2004/08/events/event'><System>\
        <Provider Name='Service Control Manager' Guid='{555908d1-a6d7-4695-8e1e-26931d2012f4}' \
        EventSourceName='Service Control Manager'/><EventID Qualifiers='49152'>7034</EventID>\
        <Version>0</Version><Level>2</Level><Task>0</Task><Opcode>0</Opcode>\
        <Keywords>0x8080000000000000</Keywords><TimeCreated SystemTime='2026-11-22T05:05:00.1234567Z'/>\
        <EventRecordID>4711</EventRecordID><Correlation/><Execution ProcessID='700' ThreadID='1'/>\
        <Channel>System</Channel><Computer>srv1</Computer><Security/></System><EventData>\
        <Data Name='param1'>Print Spooler</Data><Data Name='param2'>1</Data>\
        <Binary>530070006F006F006C00</Binary></EventData><RenderingInfo Culture='en-US'>\
        <Message>The Print Spooler service terminated unexpectedly.\r\n&quot;1&quot; &lt;time&gt;</Message>\
        <Level>Error</Level></RenderingInfo></Event>";

    #[test]
    fn a_record_becomes_a_line() {
        let record = Record::parse(TOLD).unwrap();
        assert_eq!(
            record.line(),
            "Error Service Control Manager 7034: The Print Spooler service terminated unexpectedly.\n\"1\" <time>"
        );
        let (bare, _) = TOLD.split_once("<RenderingInfo").unwrap();
        let record = Record::parse(&format!("{bare}</Event>")).unwrap();
        assert_eq!(
            record.line(),
            "Error Service Control Manager 7034: param1=Print Spooler, param2=1"
        );
    }

    #[test]
    fn a_filter_asks_for_provider_number_and_level() {
        let record = Record::parse(TOLD).unwrap();
        let any = EventLogFilter::default;
        assert!(record.passes(&any()));
        for (providers, well) in [("service control manager", true), ("disk", false)] {
            let providers = vec![providers.to_owned()];
            let filter = EventLogFilter { providers, ..any() };
            assert_eq!(record.passes(&filter), well);
        }
        for (id, well) in [(7_034, true), (7_036, false)] {
            let event_ids = vec![id];
            let filter = EventLogFilter { event_ids, ..any() };
            assert_eq!(record.passes(&filter), well);
        }
        for (level, well) in [(1, false), (2, true), (5, true)] {
            let max_level = Some(level);
            let filter = EventLogFilter { max_level, ..any() };
            assert_eq!(record.passes(&filter), well);
        }
    }

    #[test]
    fn odd_records_are_read_as_far_as_they_go() {
        let audit = "<Event><System><Provider Name=\"Microsoft-Windows-Security-Auditing\"/>\
            <EventID>4625</EventID><Level>0</Level><Keywords>0x8010000000000000</Keywords></System>\
            <UserData><Try xmlns='x'><User>a&amp;b</User><Why>\u{1}</Why></Try></UserData></Event>";
        let record = Record::parse(audit).unwrap();
        assert_eq!(record.level, 3);
        assert_eq!(
            record.line(),
            "Audit Failure Microsoft-Windows-Security-Auditing 4625: User=a&b, Why=\u{fffd}"
        );
        for odd in ["", "<Event/>", "text", "<Event><System/></Event>"] {
            assert_eq!(Record::parse(odd), None, "{odd}");
        }
    }
}
