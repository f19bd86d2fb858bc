"""The locked ruleset as text: `closed()` of the policy in the syntax of each firewall.

It is text because the lock runs before the policy is imported. A test keeps the two equal.
"""

GUARD = """\
add table netdev portcullis_guard
flush table netdev portcullis_guard
table netdev portcullis_guard {{
{chains}}}
"""

GUARD_CHAIN = """\
	chain egress-{chain} {{
		type filter hook egress device "{name}" priority filter; policy drop;
		counter drop comment "never passed the firewall"
	}}
"""

IPV4 = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
-A INPUT -d 127.0.0.11/32 -p tcp -m comment --comment "P10 no names via Docker" \
-j REJECT --reject-with tcp-reset
-A INPUT -d 127.0.0.11/32 -m comment --comment "P10 no names via Docker" \
-j REJECT --reject-with icmp-admin-prohibited
-A INPUT -i lo -p icmp -m icmp --icmp-type 5 \
-m comment --comment "P11 no routes via loopback" -j DROP
-A INPUT -i lo -m comment --comment loopback -j ACCEPT
-A INPUT -m comment --comment "P1 nothing else enters" -j DROP
-A FORWARD -m comment --comment "P11 nothing is forwarded" -j DROP
-A OUTPUT -d 127.0.0.11/32 -p tcp -m comment --comment "P10 no names via Docker" \
-j REJECT --reject-with tcp-reset
-A OUTPUT -d 127.0.0.11/32 -m comment --comment "P10 no names via Docker" \
-j REJECT --reject-with icmp-admin-prohibited
-A OUTPUT -o lo -m comment --comment loopback -j ACCEPT
-A OUTPUT -p tcp -m tcp --tcp-flags SYN,ACK SYN \
-m comment --comment "P1 nothing else leaves" -j REJECT --reject-with tcp-reset
-A OUTPUT -m comment --comment "P1 nothing else leaves" \
-j REJECT --reject-with icmp-admin-prohibited
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
"""

IPV6 = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT DROP [0:0]
-A INPUT -i lo -p ipv6-icmp -m icmp6 --icmpv6-type 133 \
-m comment --comment "P11 no routes via loopback" -j DROP
-A INPUT -i lo -p ipv6-icmp -m icmp6 --icmpv6-type 134 \
-m comment --comment "P11 no routes via loopback" -j DROP
-A INPUT -i lo -p ipv6-icmp -m icmp6 --icmpv6-type 137 \
-m comment --comment "P11 no routes via loopback" -j DROP
-A INPUT -i lo -m comment --comment loopback -j ACCEPT
-A INPUT -m comment --comment "P1 nothing else enters" -j DROP
-A FORWARD -m comment --comment "P11 nothing is forwarded" -j DROP
-A OUTPUT -o lo -m comment --comment loopback -j ACCEPT
-A OUTPUT -p tcp -m tcp --tcp-flags SYN,ACK SYN \
-m comment --comment "P1 nothing else leaves" -j REJECT --reject-with tcp-reset
-A OUTPUT -m comment --comment "P1 nothing else leaves" \
-j REJECT --reject-with icmp6-adm-prohibited
COMMIT
*mangle
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:FORWARD ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
COMMIT
"""

NFTABLES = """\
add table inet portcullis
flush table inet portcullis
table inet portcullis {
	chain prerouting {
		type filter hook prerouting priority mangle; policy accept;
	}

	chain input {
		type filter hook input priority filter; policy drop;
		meta nfproto ipv4 ip daddr 127.0.0.11/32 meta l4proto tcp counter reject with tcp reset \
comment "P10 no names via Docker"
		meta nfproto ipv4 ip daddr 127.0.0.11/32 counter reject with icmp admin-prohibited \
comment "P10 no names via Docker"
		meta nfproto ipv4 iifname "lo" icmp type 5 counter drop \
comment "P11 no routes via loopback"
		meta nfproto ipv4 iifname "lo" accept comment "loopback"
		meta nfproto ipv4 counter drop comment "P1 nothing else enters"
		meta nfproto ipv6 iifname "lo" icmpv6 type 133 counter drop \
comment "P11 no routes via loopback"
		meta nfproto ipv6 iifname "lo" icmpv6 type 134 counter drop \
comment "P11 no routes via loopback"
		meta nfproto ipv6 iifname "lo" icmpv6 type 137 counter drop \
comment "P11 no routes via loopback"
		meta nfproto ipv6 iifname "lo" accept comment "loopback"
		meta nfproto ipv6 counter drop comment "P1 nothing else enters"
		drop comment "the rest"
	}

	chain forward {
		type filter hook forward priority filter; policy drop;
		meta nfproto ipv4 counter drop comment "P11 nothing is forwarded"
		meta nfproto ipv6 counter drop comment "P11 nothing is forwarded"
		drop comment "the rest"
	}

	chain output_mark {
		type route hook output priority mangle; policy accept;
	}

	chain output {
		type filter hook output priority filter; policy drop;
		meta nfproto ipv4 ip daddr 127.0.0.11/32 meta l4proto tcp counter reject with tcp reset \
comment "P10 no names via Docker"
		meta nfproto ipv4 ip daddr 127.0.0.11/32 counter reject with icmp admin-prohibited \
comment "P10 no names via Docker"
		meta nfproto ipv4 oifname "lo" accept comment "loopback"
		meta nfproto ipv4 tcp flags & (syn | ack) == syn counter reject with tcp reset \
comment "P1 nothing else leaves"
		meta nfproto ipv4 counter reject with icmp admin-prohibited \
comment "P1 nothing else leaves"
		meta nfproto ipv6 oifname "lo" accept comment "loopback"
		meta nfproto ipv6 tcp flags & (syn | ack) == syn counter reject with tcp reset \
comment "P1 nothing else leaves"
		meta nfproto ipv6 counter reject with icmpv6 admin-prohibited \
comment "P1 nothing else leaves"
		drop comment "the rest"
	}

	chain postrouting {
		type filter hook postrouting priority mangle; policy accept;
	}
}
"""
