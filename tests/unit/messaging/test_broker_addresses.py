import pytest

from bus.errors import ConfigurationError
from bus.messaging.broker_addresses import (
    HTTP,
    UrlError,
    describe_brokers,
    parse_urls,
    require_urls,
)

ENCODE = "has a character that must be percent-encoded"


def texts(value: str) -> list[str]:
    return [url.text for url in parse_urls(value)]


@pytest.mark.parametrize("separator", [";", ",", " ; ", ",\n"])
def test_a_list_of_urls_is_split_directly_before_each_scheme(separator: str) -> None:
    value = separator.join(["amqp://u:p@one/shop", "amqp://u:q@two:5673/shop"])
    assert texts(value) == ["amqp://u:p@one/shop", "amqp://u:q@two:5673/shop"]


@pytest.mark.parametrize("password", ["a;b,c", "a,b", "p;amqp", ",;,"])
def test_a_separator_in_a_password_separates_nothing(password: str) -> None:
    (url,) = parse_urls(f"amqp://u:{password}@host/")
    assert url.password == password
    assert [each.password for each in parse_urls(f"amqp://u:{password}@a,b;amqp://u:x@c")] == [
        password,
        password,
        "x",
    ]


def test_a_url_with_several_hosts_is_a_list_with_the_same_user_virtual_host_and_parameters() -> (
    None
):
    assert texts("amqps://u:p@one,two:5673, [::1]:5674/shop?heartbeat=5") == [
        "amqps://u:p@one/shop?heartbeat=5",
        "amqps://u:p@two:5673/shop?heartbeat=5",
        "amqps://u:p@[::1]:5674/shop?heartbeat=5",
    ]


def test_a_text_about_brokers_has_hosts_ports_and_the_virtual_host_only() -> None:
    urls = parse_urls("amqps://u:p@one,two:5673/a%2Fb?cafile=x")
    assert describe_brokers(urls) == "one:5671, two:5673 (virtual host a/b)"
    assert describe_brokers(urls[:1]) == "one:5671 (virtual host a/b)"
    assert describe_brokers(parse_urls("amqp://u:p@[::1]/%2F")) == "[::1]:5672"
    assert "u:p" not in repr(urls)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("amqp://u:p@one;amqp://u:p@two:port", "the 2nd address is not valid"),
        ("amqp://u:p@one;amqp://u:p@t..o;amqp://u:p@three", "the 2nd address is not valid"),
        ("amqp://u:p@one,two,th ree/", "the 3rd address is not valid"),
        ("amqp://u:p@one,,two/", "the 2nd address is empty. Remove the ,"),
        ("amqp://u:p@one,two;amqp://u:p@", "the 3rd address is not valid"),
        ("amqp://u:p@one;amqp://u:p/q@two", f"the 2nd address {ENCODE}"),
        ("amqp://u:p@one;amqps://u:p@two", "the 2nd address must begin with amqp://"),
        ("amqp://u:p@one/a;amqp://u:p@two/b", "the 2nd address must have the virtual host of"),
        ("amqp://u:p@one;amqp://two", "the 2nd address must have a user and a password if"),
        ("amqp://u:p@" + ",".join(["h"] * 20) + ",h:0", "the 21st address is not valid"),
        ("amqp://u:p@" + ",".join(["h"] * 11) + ",h:0", "the 12th address is not valid"),
    ],
)
def test_the_error_of_a_list_names_the_position_of_the_wrong_address(value: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^BUS_URL: {text}"):
        require_urls(value)


LIST = "Write several hosts as amqp://user:password@host1:port,host2:port/vhost, or write ;"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("amqp://u:p@a:1/,b:2/", f"the address has a , or ; after the / .*{LIST}.*as %2C"),
        ("amqp://u:p@a:1/v;b:2/v", f"the address has a , or ; after the / .*{LIST}.*as %2C"),
        ("amqp://u:p@a;b/v", f"the address has a ; that no URL follows.*{LIST}"),
        ("amqp://u:p@a amqp://u:p@b", f"the address has no ; before the next URL.*{LIST}"),
        ("amqp://u:p@a/v\namqp://u:p@b/v", f"the address has no ; before the next URL.*{LIST}"),
        ("amqp://u:p@a/v;", "the address has a ; or , at its end. Remove it"),
        ("amqp://u:p@a;\namqp://u:p@b;\n", "the 2nd address has a ; or , at its end. Remove it"),
        ("amqp://u:p@a;;amqp://u:p@b", "the 1st address has a ; or , at its end. Remove it"),
        (";amqp://u:p@a", "the 1st address is empty"),
        ("amqp://u:p@,a", "the 1st address is empty. Remove the , that has no host"),
        ("amqp://u:p@a\n", "the address has a line break or .* cannot be printed. Remove it"),
        ("amqp://u:p\nq@a", "the address has a line break or .* percent-encoded, such as %0A"),
    ],
)
def test_a_wrong_separator_is_refused_with_the_form_of_a_list(value: str, text: str) -> None:
    with pytest.raises(ConfigurationError, match=f"^BUS_URL: {text}"):
        require_urls(value)


def test_a_virtual_host_can_have_separators_that_are_percent_encoded() -> None:
    (url,) = parse_urls("amqp://u:a;b,c@host/%2Cbooks%3B")
    assert (url.virtual_host, url.password) == (",books;", "a;b,c")
    assert parse_urls(url.with_virtual_host("x;y").text)[0].virtual_host == "x;y"


@pytest.mark.parametrize("mark", ["@", "/", "#", "?", "%zz", "%-", "/@"])
def test_a_password_with_an_unencoded_mark_is_refused_with_the_advice_to_encode_it(
    mark: str,
) -> None:
    with pytest.raises(UrlError, match=f"the address {ENCODE}") as caught:
        parse_urls(f"amqp://user:12{mark}34@host/orders")
    assert not {"12", "34"} & {*str(caught.value).replace("%", " ").split()}


def test_what_follows_an_unencoded_mark_is_never_taken_for_a_host_or_virtual_host() -> None:
    for value in ("amqp://user:1888/x@host", "amqp://user:1888?x@host", "amqp://u:1888#@host"):
        with pytest.raises(UrlError):
            parse_urls(value)
    with pytest.raises(UrlError, match="2nd address must have a user and a password"):
        parse_urls("amqp://user:1888,amqp://x@host/")


def test_letters_that_rfc_3986_does_not_allow_in_a_password_are_encoded() -> None:
    (url,) = parse_urls("amqp://u:pä ss[w\\@h/ö")
    assert url.text == "amqp://u:p%C3%A4%20ss%5Bw%5C@h/%C3%B6"
    assert (url.user, url.password, url.virtual_host) == ("u", "pä ss[w\\", "ö")


def test_a_management_url_can_be_a_list_and_has_no_parameters() -> None:
    urls = parse_urls("http://u:p@one:15672/api,http://u:p@two", HTTP)
    assert [url.place for url in urls] == ["one:15672", "two:15672"]
    with pytest.raises(UrlError, match="must have no parameters"):
        parse_urls("http://one/?x", HTTP)
