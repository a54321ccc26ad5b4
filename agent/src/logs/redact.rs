//! Takes secrets and personal data out of a line before it leaves the machine.
//!
//! Patterns can't know everything; they err on the side of taking out too much. The built-in ones:
//! assignments to names of secrets in several languages, also URL-encoded, as XML elements and as
//! attributes; options of command lines and SQL statements; credentials of HTTP, cookies, JSON web
//! tokens, keys of cloud services by their prefixes; user information in URLs, private keys, e-mail
//! addresses, and card numbers. They are compiled when the first line matches a rule, not before, as
//! most agents never need them.

use std::{borrow::Cow, sync::OnceLock};

use regex::{
    Regex,
    bytes::{self, Captures, RegexBuilder},
};

use super::cards::without_card_numbers;

const REDACTED: &str = "[redacted]";
/// How often a line is looked at; the first pass almost always suffices.
const PASSES: usize = 5;

/// Names of secrets in English, French, German, Polish, Portuguese, Russian and Spanish.
macro_rules! names {
    () => {
        concat!(
            "(?:password|passwd|passphrase|passcode|passwort|kennwort|pwd|secret|token",
            "|(?:api|access|private|account|auth|decryption|encryption|master|shared|signing",
            "|validation)[-_ ]?key|credentials?|client[-_ ]?id|mot[ _-]?de[ _-]?passe|mdp|senha",
            // "hasło" and "contraseña" with any case of their letters, and "пароль".
            r"|has(?:\xc5[\x81\x82]|l)o|contrase(?:\xc3[\x91\xb1]|n)a|\xd0[\x9f\xbf](?:",
            r"\xd0\xb0\xd1\x80\xd0\xbe\xd0\xbb\xd1\x8c|\xd0\x90\xd0\xa0\xd0\x9e\xd0\x9b\xd0\xac))"
        )
    };
}

/// What was taken out before is part of a value.
macro_rules! marks {
    () => {
        r"\[redacted\]|\[e-mail\]|\[card number\]"
    };
}

/// One word of a command line, quoted or not; no option.
macro_rules! word {
    () => {
        r#"(?:"[^"]*"?|'[^']*'?|[^\s"'-]\S*)"#
    };
}

/// Pattern and replacement, in the order in which they are applied. They work on bytes: classes of
/// Unicode compile to many times the size. No match begins or ends within a letter, as the classes that
/// match a part of one match all its bytes.
const BUILT_IN: [(&str, &str); 24] = [
    (
        r"(?s)-----BEGIN[A-Z ]*PRIVATE KEY-----.*?(?:-----END[A-Z ]*PRIVATE KEY-----|\z)",
        REDACTED,
    ),
    (r"(?i)((?:set-)?cookie[ \t]*[:=][ \t]*).*", "${1}[redacted]"),
    (
        r#"(?i)(authorization["']?[ \t]*[:=][ \t]*["']?(?:(?:apikey|api-key|basic|bearer|digest|key|negotiate|ntlm|signature|token)[ \t]+)?)[a-z0-9._~+/=-]{8,}"#,
        "${1}[redacted]",
    ),
    (
        r"(?i)(bearer|basic|digest|negotiate)[ \t]+[a-z0-9._~+/=-]{6,}",
        "${1} [redacted]",
    ),
    // Shorter ones are words.
    (
        r"(?i)(token|api-?key)[ \t]+[a-z0-9._~+/=-]{16,}",
        "${1} [redacted]",
    ),
    (
        r"eyJ[A-Za-z0-9_-]{8}[A-Za-z0-9_-]*\.[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]*)?",
        REDACTED,
    ),
    // Amazon, GitHub, GitLab, Slack, Stripe, Google, npm, SendGrid, DigitalOcean, Vault, OpenAI.
    (
        r"(?:AKIA|ASIA)[0-9A-Z]{16}|(?:gh[oprsu]_|github_pat_|glpat-|xox[abeoprs]-|xapp-|[rs]k_live_|[rs]k_test_|whsec_|AIza|ya29\.|npm_|SG\.|do[op]_v1_|hv[bs]\.|sk-)[A-Za-z0-9_.-]{16,}",
        REDACTED,
    ),
    // The path is the secret.
    (
        r"(hooks\.slack\.com/|discord(?:app)?\.com/api/webhooks/|webhook\.office\.com/)[^\s\x22']+",
        "${1}[redacted]",
    ),
    URL_USER,
    // `<wsse:Password Type="...">x</wsse:Password>`.
    (
        concat!(
            r"(?i)(<[a-z0-9_.:-]*",
            names!(),
            r"[a-z0-9_.-]*(?:\s[^<>]*)?>)(?:",
            marks!(),
            r"|[^<\[]|\[)+"
        ),
        "${1}[redacted]",
    ),
    // `<add key="DbPassword" value="x"/>`.
    (
        concat!(
            r#"(?i)((?:key|name)[ \t]*=[ \t]*["'][^"']*"#,
            names!(),
            r#"[^"']*["'][^<>]*?value[ \t]*=[ \t]*)(?:"[^"]*"?|'[^']*'?)"#
        ),
        "${1}[redacted]",
    ),
    // `password%3Dx%26`.
    (
        concat!(
            "(?i)(",
            names!(),
            r#"[a-z0-9_.-]*(?:%22|%27)?(?:%20)*%3[AD](?:%20|%22|%27)*)(?:[^\s&%"']|%[013-9a-f][0-9a-f]|%2[0-57-9a-f])+"#
        ),
        "${1}[redacted]",
    ),
    ASSIGNMENT,
    (
        concat!(
            "(?i)(",
            names!(),
            r"[ \t]+(?:is|was|est|ist|lautet|jest|to)[ \t]+)\S+"
        ),
        "${1}[redacted]",
    ),
    // SQL: `IDENTIFIED BY 'x'`, `WITH PASSWORD 'x'`, `PASSWORD('x')`.
    (
        r#"(?i)(identified[ \t]+by[ \t]+(?:password[ \t]+)?)(?:"[^"]*"?|'[^']*'?|[^\s;]+)"#,
        "${1}[redacted]",
    ),
    (
        r#"(?i)(password(?:[ \t]+|[ \t]*\([ \t]*))(?:"[^"]*"?|'[^']*'?)"#,
        "${1}[redacted]",
    ),
    // Options: `--password x`, `--pass=x`, `-passin pass:x`.
    (
        concat!(
            r"(?i)((?:^|[\s('\x22])--?(?:[a-z]+-)*(?:pass|",
            names!(),
            r")(?:-[a-z]+)*(?:[ \t]+|=))",
            word!()
        ),
        "${1}[redacted]",
    ),
    (
        r"([ \t](?:pass|env)(?:in|out)?[ \t]+pass:)\S+",
        "${1}[redacted]",
    ),
    (
        concat!(
            r"((?:mysql[a-z]*|mariadb[a-z-]*|mongo[a-z]*|sshpass|7za?|zip|rar|unrar)[ \t](?:[^\n]*?[ \t])?-p)",
            word!()
        ),
        "${1}[redacted]",
    ),
    (
        r"((?:sshpass[ \t]+-p|ldap[a-z]+[ \t](?:[^\n]*?[ \t])?-w|redis-cli[ \t](?:[^\n]*?[ \t])?-a|htpasswd[ \t]+-[a-zA-Z]*b[a-zA-Z]*[ \t]+\S+[ \t]+\S+)[ \t]+)\S+",
        "${1}[redacted]",
    ),
    (
        r#"(curl[ \t](?:[^\n]*?[ \t])?(?:-u|--user|--proxy-user)[ \t=]*["']?[^\s:"']+:|[ \t]-U[ \t]*[^\s%]+%)[^\s"']+"#,
        "${1}[redacted]",
    ),
    (
        r"(echo[ \t]+(?:-n[ \t]+)?)[^|\n]+(\|[ \t]*(?:\S*/)?(?:chpasswd|sudo[ \t]+-S))",
        "${1}[redacted] ${2}",
    ),
    (
        r#"[^\s@<>()\[\],;:"'=]+@[^\s@<>()\[\],;:"'=./]+(?:\.[^\s@<>()\[\],;:"'=./]+)+"#,
        "[e-mail]",
    ),
    // An address that was taken out may have stood in the way.
    URL_USER,
];

/// `password=x`, `"api_key": "x"`, `пароль: x`.
const ASSIGNMENT: (&str, &str) = (
    concat!(
        "(?i)(",
        names!(),
        r#"[a-z0-9_.-]*\\?["']?(?:[ \t]|\xc2\xa0|\xe2\x80\xaf)*(?:=>|[:=])(?:[ \t]|\xc2\xa0)*)((?:(?:\\?"(?:[^"\\]|\\[^"])*\\?"?|'[^']*'?)(?:"#,
        marks!(),
        r#"|[^\s,;&"'\]})])*|(?:"#,
        marks!(),
        r#"|[^\s,;&"'\]})])+))"#
    ),
    "${1}[redacted]",
);

/// User information in a URL. A password may hold a slash, though it should not; one after digits
/// alone is that behind a port.
const URL_USER: (&str, &str) = (
    r"([A-Za-z][A-Za-z0-9+.-]*://)(?:[^\s/@]+|[^\s/@:]*:[0-9]*[^\s/@0-9][^\s@]*)@",
    "${1}[redacted]@",
);

/// Takes secrets out of lines.
#[derive(Debug)]
pub struct Redactor {
    extra: Vec<Regex>,
    built_in: OnceLock<Compiled>,
}

#[derive(Debug)]
struct Compiled {
    patterns: Vec<(bytes::Regex, &'static str)>,
    digits: bytes::Regex,
}

impl Redactor {
    /// With these patterns beside the built-in ones.
    pub fn new(extra: Vec<Regex>) -> Self {
        Self {
            extra,
            built_in: OnceLock::new(),
        }
    }

    /// `line` without what must not leave the machine. What is left of a line can be a secret by
    /// another pattern, so it is looked at again until nothing changes, within [`PASSES`].
    pub fn redact(&self, line: &str) -> String {
        let mut text = self.pass(line);
        for _ in 1..PASSES {
            if text == line {
                break;
            }
            let again = self.pass(&text);
            if again == text {
                break;
            }
            text = again;
        }
        text
    }

    fn pass(&self, line: &str) -> String {
        let compiled = self.built_in.get_or_init(Compiled::new);
        let mut bytes = Cow::Borrowed(line.as_bytes());
        for (pattern, replacement) in &compiled.patterns {
            bytes = replaced(bytes, |bytes| {
                pattern.replace_all(bytes, |found: &Captures<'_>| {
                    replacement_of(found, bytes, replacement)
                })
            });
        }
        bytes = replaced(bytes, |bytes| without_card_numbers(bytes, &compiled.digits));
        let mut text = match bytes {
            Cow::Borrowed(_) => Cow::Borrowed(line),
            Cow::Owned(bytes) => Cow::Owned(String::from_utf8_lossy(&bytes).into_owned()),
        };
        for pattern in &self.extra {
            text = match pattern.replace_all(&text, regex::NoExpand(REDACTED)) {
                Cow::Borrowed(_) => text,
                Cow::Owned(changed) => Cow::Owned(changed),
            };
        }
        text.into_owned()
    }
}

impl Compiled {
    fn new() -> Self {
        let compile = |pattern| {
            let built = RegexBuilder::new(pattern).unicode(false).build();
            built.expect("a test compiles all of them")
        };
        Self {
            patterns: BUILT_IN
                .iter()
                .map(|(pattern, replacement)| (compile(pattern), *replacement))
                .collect(),
            digits: compile(super::cards::DIGITS),
        }
    }
}

/// What stands in place of a match; the match itself where it only looks like a secret.
fn replacement_of(found: &Captures<'_>, line: &[u8], replacement: &str) -> Vec<u8> {
    let mut text = Vec::new();
    if is_working_directory(found, line) {
        text.extend_from_slice(&found[0]);
    } else {
        found.expand(replacement.as_bytes(), &mut text);
    }
    text
}

/// `PWD=/srv`, as sudo writes it: where the command ran, and no password.
fn is_working_directory(found: &Captures<'_>, line: &[u8]) -> bool {
    let Some(whole) = found.get(0) else {
        return false;
    };
    let before = line[..whole.start()].last();
    whole.as_bytes().starts_with(b"PWD=/") && before.is_none_or(|byte| *byte == b' ')
}

fn replaced<'a>(
    bytes: Cow<'a, [u8]>,
    replace: impl for<'b> Fn(&'b [u8]) -> Cow<'b, [u8]>,
) -> Cow<'a, [u8]> {
    match replace(&bytes) {
        Cow::Borrowed(_) => bytes,
        Cow::Owned(changed) => Cow::Owned(changed),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    thread_local! {
        /// Compiling the patterns takes longer than any test.
        static REDACTOR: Redactor = Redactor::new(Vec::new());
    }

    fn redact(line: &str) -> String {
        REDACTOR.with(|redactor| redactor.redact(line))
    }

    #[test]
    fn secrets_go_and_the_rest_stays() {
        for (line, expected) in [
            ("disk full on /var", "disk full on /var"),
            (
                "Failed password for root from 192.0.2.1",
                "Failed password for root from 192.0.2.1",
            ),
            ("login password=hunter2 ok", "login password=[redacted] ok"),
            (
                "DB_PASSWORD: 'a b c', next",
                "DB_PASSWORD: [redacted], next",
            ),
            (
                r#"{"api_key": "xyz", "n": 1}"#,
                r#"{"api_key": [redacted], "n": 1}"#,
            ),
            (
                "GET /?access_token=abc&x=1",
                "GET /?access_token=[redacted]&x=1",
            ),
            (
                "Authorization: Bearer abcdef123456",
                "Authorization: Bearer [redacted]",
            ),
            (
                "authorization=basic dXNlcjpwYXNz",
                "authorization=basic [redacted]",
            ),
            ("Cookie: sid=1; theme=dark", "Cookie: [redacted]"),
            (
                "jwt eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.abc end",
                "jwt [redacted] end",
            ),
            ("key AKIAIOSFODNN7EXAMPLE used", "key [redacted] used"),
            (
                "connect postgres://bob:pw@db/x",
                "connect postgres://[redacted]@db/x",
            ),
            ("-----BEGIN RSA PRIVATE KEY-----MIIE", "[redacted]"),
            (
                "key -----BEGIN PRIVATE KEY-----\nMIIE\nabc=\n-----END PRIVATE KEY-----\nread",
                "key [redacted]\nread",
            ),
            (
                "a\n-----BEGIN EC PRIVATE KEY-----\nMIIE\nabc=",
                "a\n[redacted]",
            ),
            (
                "mail from jo.doe+x@mail.example.org failed",
                "mail from [e-mail] failed",
            ),
            (
                "paid with 4111 1111 1111 1111 today",
                "paid with [card number] today",
            ),
            ("paid with 4111-1111-1111-1111", "paid with [card number]"),
            ("order 7 4111111111111111", "order 7 [card number]"),
            (
                "not a card 4111 1111 1111 1112",
                "not a card 4111 1111 1111 1112",
            ),
            ("the password is hunter2", "the password is [redacted]"),
            // What was taken out before is part of the value.
            ("password=https://u:p@h/x", "password=[redacted]"),
            ("token=\"x\"y z", "token=[redacted] z"),
            ("access_token=a}b@c.d", "access_token=[redacted]"),
            ("curl 'token=abc' failed", "curl 'token=[redacted]' failed"),
        ] {
            assert_eq!(redact(line), expected);
        }
    }

    #[test]
    fn passwords_in_urls_go_and_paths_stay() {
        for (line, expected) in [
            ("postgres://bob:p/w@db/x", "postgres://[redacted]@db/x"),
            ("x://bob:/y@mail.example.org@db", "x://[redacted]@db"),
            ("http://registry:8080/@scope", "http://registry:8080/@scope"),
        ] {
            assert_eq!(redact(line), expected);
        }
    }

    #[test]
    fn extra_patterns_are_applied_literally() {
        let redactor = Redactor::new(vec![Regex::new(r"CUST-\d+").unwrap()]);
        assert_eq!(redactor.redact("for CUST-123 $1"), "for [redacted] $1");
    }

    #[test]
    fn secrets_of_command_lines_and_of_many_formats_go() {
        for line in [
            "sudo: bob : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/usr/bin/mysql -u root -phunter2 shop",
            "sudo: bob : PWD=/srv ; USER=root ; COMMAND=/bin/restic --password hunter2 backup",
            "CRON[77]: (root) CMD (/opt/backup.sh --pass hunter2 >/dev/null)",
            "CRON[77]: (root) CMD (PGPASSWORD=hunter2 pg_dump shop)",
            "CRON[77]: (root) CMD (mysqldump --opt -phunter2 shop | gzip)",
            "COMMAND=/usr/bin/mariadb -h db -p'hunter2' -e x",
            "COMMAND=/usr/bin/sshpass -p hunter2 ssh web1",
            "COMMAND=/usr/bin/curl -s -u bob:hunter2 https://example.org",
            "COMMAND=/usr/bin/curl --user bob:hunter2 https://example.org",
            "COMMAND=/usr/bin/ldapsearch -x -w hunter2 -b dc=x",
            "COMMAND=/usr/bin/redis-cli -h r -a hunter2 ping",
            "COMMAND=/usr/bin/htpasswd -bc /etc/f bob hunter2",
            "COMMAND=/usr/bin/smbclient //s/x -U bob%hunter2",
            "COMMAND=/bin/sh -c echo bob:hunter2 | chpasswd",
            "COMMAND=/bin/sh -c echo hunter2 | sudo -S id",
            "COMMAND=/usr/bin/openssl enc -pass pass:hunter2 -in x",
            "<wsse:Password Type=\"Text\">hunter2</wsse:Password>",
            "<UserPassword>hunter2</UserPassword>",
            "<add key=\"DbPassword\" value=\"hunter2\" />",
            "<machineKey validationKey=\"hunter2\" decryption=\"AES\"/>",
            "Server=db;Uid=sa;Pwd=hunter2;Database=x",
            "DefaultEndpointsProtocol=https;AccountKey=hunter2==;",
            "CREATE USER 'bob'@'%' IDENTIFIED BY 'hunter2'",
            "ALTER USER bob IDENTIFIED BY hunter2;",
            "ALTER ROLE bob WITH PASSWORD 'hunter2'",
            "SET PASSWORD FOR bob = PASSWORD('hunter2')",
            "GET /cb?x=1%26password%3Dhunter2%26y%3D2",
            "body=%7B%22token%22%3A%22hunter2%22%7D",
            "mot de passe : hunter2",
            "mot de passe\u{a0}: hunter2",
            "nieprawidłowe hasło: hunter2",
            "HASŁO=hunter2",
            "неверный пароль: hunter2",
            "Пароль=hunter2",
            "Kennwort: hunter2",
            "Das Passwort lautet hunter2",
            "contraseña: hunter2",
        ] {
            let text = redact(line);
            assert!(!text.contains("hunter2"), "{line} became {text}");
            assert!(text.contains(REDACTED), "{line} became {text}");
        }
        let key = "0a1B2c3D4e5F6a7B8c9D";
        for line in [
            format!("Authorization: Token {key}"),
            format!("authorization: ApiKey {key}"),
            format!("\"Authorization\": \"{key}\""),
            format!("Token {key} refused"),
            format!("clone https://x with ghp_{key}"),
            format!("github_pat_{key} expired"),
            format!("glpat-{key}"),
            format!("slack xoxb-1-{key}"),
            format!("stripe sk_live_{key}"),
            format!("POST https://hooks.slack.com/services/T0/B0/{key}"),
        ] {
            let text = redact(&line);
            assert!(!text.contains(key), "{line} became {text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_secret_stays() {
        for line in [
            "sudo: bob : TTY=pts/0 ; PWD=/srv ; USER=root ; COMMAND=/bin/ls",
            "Failed password for root from 192.0.2.1",
            "Accepted password for bob from 192.0.2.1 port 22 ssh2",
            "invalid token received from peer",
            "docker run -u 1000:1000 nginx",
            "pkg -p 80 up",
            "mysql -u root -p shop",
            "rsync -a --delete /a /b",
            "authorization: denied",
        ] {
            assert_eq!(redact(line), line);
        }
        let line = "app: MYSQL_PWD=/etc x; UID=sa;PWD=/a;";
        assert_eq!(
            redact(line),
            "app: MYSQL_PWD=[redacted] x; UID=sa;PWD=[redacted];"
        );
    }

    proptest! {
        #[test]
        fn no_secret_survives_in_any_surroundings(
            name in "(db_|X-)?(password|secret|api-key|TOKEN|passwd)(_v2)?",
            sep in "( ?= ?|: ?|\": \")",
            secret in "[A-Za-z0-9!#$%^*_+]{6,40}",
            before in "[a-z ]{0,20} ",
            after in "( [a-z ]{0,20})?",
        ) {
            let line = format!("{before}{name}{sep}{secret}{after}");
            let text = redact(&line);
            prop_assert!(!text.contains(&secret), "{line} became {text}");
        }

        #[test]
        fn any_text_is_taken(line in "\\PC*") {
            let _ = redact(&line);
        }
    }
}
