//! What someone typed into a form whose session had ended, or had changed, when it was sent. The
//! text comes back in a form of its own, after the sign-in or at once; nothing is sent without
//! another press.

use askama::Template;
use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{
    context::html,
    error::{OWN_BODY, WebError},
    session::Theme,
};

/// The field that holds what a person typed.
const TEXT: &str = "text";

/// A form that was not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unsent {
    /// Where it was sent to.
    pub(crate) action: String,
    pub(crate) text: String,
    /// The form's other fields, without the security token.
    pub(crate) others: Vec<(String, String)>,
}

impl Unsent {
    /// The form in a request's body, if it is one of our pages' and someone typed into it.
    pub(crate) fn of(action: &str, headers: &HeaderMap, body: &[u8]) -> Option<Self> {
        let kind = headers.get(header::CONTENT_TYPE)?.to_str().ok()?;
        if !kind.starts_with("application/x-www-form-urlencoded") {
            return None;
        }
        Self::parse(action, body)
    }

    /// From the two fields that the sign-in form carries.
    pub(crate) fn kept(action: &str, fields: &str) -> Option<Self> {
        Self::parse(action, &URL_SAFE_NO_PAD.decode(fields).ok()?)
    }

    fn parse(action: &str, fields: &[u8]) -> Option<Self> {
        if !action.starts_with("/tickets/") && !action.starts_with("/hosts/") {
            return None;
        }
        let mut text = String::new();
        let mut others = Vec::new();
        for (name, value) in form_urlencoded::parse(fields) {
            match &*name {
                "csrf" => {}
                TEXT => text = value.into_owned(),
                _ => others.push((name.into_owned(), value.into_owned())),
            }
        }
        let action = action.to_owned();
        (!text.trim().is_empty()).then_some(Self {
            action,
            text,
            others,
        })
    }

    /// The fields as one text for a hidden field, which needs no further encoding.
    pub(crate) fn fields(&self) -> String {
        let mut form = form_urlencoded::Serializer::new(String::new());
        form.append_pair(TEXT, &self.text);
        form.extend_pairs(&self.others);
        URL_SAFE_NO_PAD.encode(form.finish())
    }

    /// The form again, with a token that is good.
    pub(crate) fn page(self, status: StatusCode, csrf: String, theme: Theme) -> Response {
        let page = UnsentPage {
            theme,
            back: page_of(&self.action).to_owned(),
            csrf,
            unsent: self,
        };
        let body = html(&page).unwrap_or_else(WebError::into_response);
        (status, [(OWN_BODY, "1")], body).into_response()
    }
}

/// The page that a form belongs to.
pub(crate) fn page_of(action: &str) -> &str {
    let page = match action {
        "/account/sessions/revoke" => "/account",
        "/logout" => "/",
        action if action.starts_with("/tickets/") || action.starts_with("/hosts/") => {
            action.rsplit_once('/').map_or(action, |(page, _)| page)
        }
        action => action,
    };
    if page.is_empty() { "/" } else { page }
}

#[derive(Template)]
#[template(path = "pages/unsent.html")]
struct UnsentPage {
    theme: Theme,
    back: String,
    csrf: String,
    unsent: Unsent,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_typed_survives_and_the_token_does_not() {
        let body = b"act=note&csrf=old&audience=public&text=Two%0D%0Alines+%26+more";
        let unsent = Unsent::parse("/tickets/7/act", body).unwrap();
        assert_eq!(unsent.text, "Two\r\nlines & more");
        let names: Vec<&str> = unsent.others.iter().map(|one| one.0.as_str()).collect();
        assert_eq!(names, ["act", "audience"]);
        let again = Unsent::kept("/tickets/7/act", &unsent.fields());
        assert_eq!(again, Some(unsent));
        // A press of a button has nothing to lose; a password is never echoed.
        assert_eq!(Unsent::parse("/tickets/7/act", b"act=resolve&text=+"), None);
        assert_eq!(Unsent::parse("/account/password", b"text=secret"), None);
        assert_eq!(Unsent::parse("//evil.example/tickets/", b"text=x"), None);
    }

    #[test]
    fn forms_belong_to_pages() {
        for (action, page) in [
            ("/tickets/7/act", "/tickets/7"),
            ("/hosts/H/watch", "/hosts/H"),
            ("/account/sessions/revoke", "/account"),
            ("/account/password", "/account/password"),
            ("/logout", "/"),
        ] {
            assert_eq!(page_of(action), page);
        }
    }
}
