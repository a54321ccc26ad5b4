//! Who receives what: the recipients that the settings name, by channel and tier. Pure.

use lettre::message::Mailbox;

use crate::config::Config;

/// The channel of mail.
pub const MAIL: &str = "mail";
/// The channel of the webhook.
pub const WEBHOOK: &str = "webhook";
/// The webhook's recipients, named by tier: an address may hold a secret of the receiver's.
const WEBHOOK_TIERS: [&str; 2] = ["tier1", "tier2"];

/// One recipient on one channel.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Endpoint {
    /// [`MAIL`] or [`WEBHOOK`].
    pub channel: &'static str,
    /// As in the outbox: a mail address; `tier1` or `tier2` of the webhook.
    pub recipient: String,
    /// The line of support that it belongs to, 1 or 2.
    pub tier: u8,
}

impl Endpoint {
    fn mail(address: &str, tier: u8) -> Self {
        // A display name is not part of the address. Addresses were checked with the settings.
        let recipient = address
            .parse::<Mailbox>()
            .map_or_else(|_| address.to_owned(), |mailbox| mailbox.email.to_string());
        Self {
            channel: MAIL,
            recipient,
            tier,
        }
    }

    fn webhook(tier: u8) -> Self {
        let index = usize::from(tier.clamp(1, 2) - 1);
        Self {
            channel: WEBHOOK,
            recipient: WEBHOOK_TIERS[index].to_owned(),
            tier,
        }
    }

    /// Its name for people, behind "by CHANNEL to".
    pub fn name(&self) -> String {
        name_of(self.channel, &self.recipient)
    }

    /// Whether this is the recipient of a row.
    pub fn is(&self, channel: &str, recipient: &str) -> bool {
        self.channel == channel && self.recipient == recipient
    }
}

/// Every recipient, tier 1 first; one that is in both tiers is in the list twice.
pub fn endpoints(config: &Config) -> Vec<Endpoint> {
    let mut list = Vec::new();
    for tier in [1, 2] {
        if let Some(mail) = &config.mail {
            let addresses = if tier == 1 { &mail.to } else { &mail.tier2_to };
            list.extend(addresses.iter().map(|one| Endpoint::mail(one, tier)));
        }
        if let Some(webhook) = &config.webhook
            && (tier == 1 || webhook.tier2_url.is_some())
        {
            list.push(Endpoint::webhook(tier));
        }
    }
    list.dedup();
    list
}

/// The name of a row's recipient for people.
pub fn name_of(channel: &str, recipient: &str) -> String {
    match (channel, recipient) {
        (WEBHOOK, "tier1") => "tier 1".to_owned(),
        (WEBHOOK, "tier2") => "tier 2".to_owned(),
        (_, "") => "all recipients".to_owned(),
        _ => recipient.to_owned(),
    }
}

/// Whether escalation has other recipients than those of tier 1.
pub fn has_tier2(config: &Config) -> bool {
    endpoints(config).iter().any(|one| one.tier == 2)
}

/// The recipients of a tier. Without any of tier 2, escalation goes to tier 1 again. A webhook
/// without an address for tier 2 gets both: the tier is in the message.
pub fn of_tier(config: &Config, tier: u8) -> Vec<Endpoint> {
    let all = endpoints(config);
    if tier < 2 || !has_tier2(config) {
        return all.into_iter().filter(|one| one.tier == 1).collect();
    }
    let has_own = |channel: &str| {
        all.iter()
            .any(|one| one.channel == channel && one.tier == 2)
    };
    all.iter()
        .filter(|one| one.tier == 2 || one.channel == WEBHOOK && !has_own(WEBHOOK))
        .cloned()
        .collect()
}

/// The recipients of all tiers up to one, each once.
pub fn up_to_tier(config: &Config, tier: u8) -> Vec<Endpoint> {
    let mut list = Vec::<Endpoint>::new();
    for tier in 1..=tier.clamp(1, 2) {
        for one in of_tier(config, tier) {
            if !list
                .iter()
                .any(|other| other.is(one.channel, &one.recipient))
            {
                list.push(one);
            }
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAIL_1: &str = "[mail]\nhost = \"m\"\nport = 25\nfrom = \"w@example.org\"\n\
        to = [\"Ada <ada@example.org>\", \"bob@example.org\"]\n";
    const HOOK: &str = "[webhook]\nurl = \"https://hooks.example.org/SECRET\"\n\
        secret_file = \"/dev/null\"\n";

    fn config(text: &str) -> Config {
        Config::parse("test", &format!("data_dir = \"/tmp\"\n{text}"), []).unwrap()
    }

    fn names(list: &[Endpoint]) -> Vec<&str> {
        list.iter().map(|one| one.recipient.as_str()).collect()
    }

    #[test]
    fn without_a_tier_2_escalation_goes_to_tier_1() {
        let config = config(&format!("{MAIL_1}{HOOK}"));
        let all = ["ada@example.org", "bob@example.org", "tier1"];
        assert_eq!(names(&of_tier(&config, 1)), all);
        assert_eq!(names(&of_tier(&config, 2)), all);
        assert_eq!(names(&up_to_tier(&config, 2)), all);
        assert!(!has_tier2(&config));
    }

    #[test]
    fn tier_2_of_mail_is_other_people_and_the_webhook_gets_both() {
        let config = config(&format!("{MAIL_1}tier2_to = [\"eve@example.org\"]\n{HOOK}"));
        assert_eq!(names(&of_tier(&config, 2)), ["tier1", "eve@example.org"]);
        assert_eq!(
            names(&up_to_tier(&config, 2)),
            [
                "ada@example.org",
                "bob@example.org",
                "tier1",
                "eve@example.org"
            ]
        );
        assert_eq!(names(&up_to_tier(&config, 1)).len(), 3);
    }

    #[test]
    fn a_webhook_with_an_address_for_tier_2_gets_only_that() {
        let hook = format!("{HOOK}tier2_url = \"https://hooks.example.org/2\"\n");
        let config = config(&format!("{MAIL_1}{hook}"));
        // Mail has no second tier, but someone has: tier 1 of mail is not paged twice.
        assert_eq!(names(&of_tier(&config, 2)), ["tier2"]);
        assert!(has_tier2(&config));
    }

    #[test]
    fn an_address_in_both_tiers_gets_one_notice() {
        let config = config(&format!("{MAIL_1}tier2_to = [\"ada@example.org\"]\n"));
        assert_eq!(names(&of_tier(&config, 2)), ["ada@example.org"]);
        assert_eq!(
            names(&up_to_tier(&config, 2)),
            ["ada@example.org", "bob@example.org"]
        );
    }
}
