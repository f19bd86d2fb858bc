"""The numbers and layouts that we give to the kernel, compared with its headers on this machine.

They are what could differ from one architecture to the next.
"""

# ruff: noqa: SLF001 - most of them have no other reader than their module

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from gateway.commands.verify import witness
from gateway.firewall.nft import program
from gateway.firewall.xtables import entry, matches, packing, raw
from gateway.policy.rules import Family, Transport
from gateway.services import confined
from gateway.system import (
    bpf,
    conntrack,
    echoes,
    features,
    landlock,
    link_alias,
    link_down,
    link_settings,
    listeners,
    lookup,
    netlink,
    netns,
    questions,
    rights,
    route_reading,
    seccomp,
    vault_process,
    watch,
    xdp,
)
from tests.conftest import skip_or_fail

HEADERS = [
    "asm/unistd.h",
    "stddef.h",
    "stdio.h",
    "sched.h",
    "sys/socket.h",
    "sys/time.h",
    "net/if.h",
    "netinet/in.h",
    "linux/audit.h",
    "linux/bpf_common.h",
    "linux/capability.h",
    "linux/errqueue.h",
    "linux/filter.h",
    "linux/if_addr.h",
    "linux/if_ether.h",
    "linux/if_packet.h",
    "linux/if_xdp.h",
    "linux/inet_diag.h",
    "linux/landlock.h",
    "linux/membarrier.h",
    "linux/netfilter/nf_tables.h",
    "linux/netfilter/nfnetlink.h",
    "linux/netfilter/nfnetlink_conntrack.h",
    "linux/netfilter/xt_multiport.h",
    "linux/netfilter/xt_tcpudp.h",
    "linux/netfilter_ipv4/ip_tables.h",
    "linux/netfilter_ipv6/ip6_tables.h",
    "linux/netlink.h",
    "linux/nsfs.h",
    "linux/prctl.h",
    "linux/rtnetlink.h",
    "linux/seccomp.h",
    "linux/sock_diag.h",
    "linux/sockios.h",
]
CALLS = [
    "socket",
    "connect",
    "bind",
    "listen",
    "execve",
    "ptrace",
    "process_vm_readv",
    "process_vm_writev",
    "execveat",
    "io_uring_setup",
    "pidfd_getfd",
    "sendmsg",
    "sendmmsg",
]
"""What `gateway.system.seccomp` refuses, in its order."""
STARTING = {"x86_64": ["clone", "fork", "vfork", "clone3"], "aarch64": ["clone", "clone3"]}
"""And what it refuses to root."""
GENERIC = Path("/usr/include/asm-generic/unistd.h")
"""The numbers of the calls on arm64, and on every newer architecture."""
X86_64 = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")


def here(machine: str = "") -> dict[str, int]:
    """Return what depends on the machine: its AUDIT_ARCH, and numbers of calls."""
    machine = machine or os.uname().machine
    audit, numbers = seccomp.CALLS[machine]
    called = zip(CALLS + STARTING[machine], numbers + seccomp.STARTING[machine], strict=True)
    return {
        f"AUDIT_ARCH_{machine.upper()}": audit,
        **{f"__NR_{name}": number for name, number in called},
        "__NR_sendto": seccomp.SENDTO[machine],
        "__NR_membarrier": features.MEMBARRIER[machine],
    }


CONSTANTS = {
    "_LINUX_CAPABILITY_VERSION_3": rights.CAPABILITY_VERSION,
    **{f"CAP_{name}": number for name, number in features.CAPABILITIES.items()},
    "CAP_NET_BIND_SERVICE": confined.NET_BIND_SERVICE,
    "PR_SET_PDEATHSIG": rights.PR_SET_PDEATHSIG,
    "PR_SET_DUMPABLE": rights.PR_SET_DUMPABLE,
    "PR_SET_SECCOMP": seccomp.PR_SET_SECCOMP,
    "PR_SET_NO_NEW_PRIVS": rights.PR_SET_NO_NEW_PRIVS,
    "PR_SET_KEEPCAPS": confined.PR_SET_KEEPCAPS,
    "PR_CAPBSET_DROP": confined.PR_CAPBSET_DROP,
    "PR_CAP_AMBIENT": confined.PR_CAP_AMBIENT,
    "PR_CAP_AMBIENT_RAISE": confined.PR_CAP_AMBIENT_RAISE,
    "SECCOMP_MODE_FILTER": seccomp.SECCOMP_MODE_FILTER,
    "SECCOMP_RET_ALLOW": seccomp.ALLOW,
    "SECCOMP_RET_ERRNO | 1": seccomp.REFUSE,
    "__NR_landlock_create_ruleset": landlock.CREATE,
    "__NR_landlock_add_rule": landlock.ADD,
    "__NR_landlock_restrict_self": landlock.RESTRICT,
    "LANDLOCK_CREATE_RULESET_VERSION": landlock.VERSION,
    "LANDLOCK_RULE_PATH_BENEATH": landlock.BENEATH,
    "LANDLOCK_ACCESS_FS_READ_FILE": landlock.READ_FILE,
    "LANDLOCK_ACCESS_FS_READ_DIR": landlock.READ_DIRECTORY,
    "LANDLOCK_ACCESS_FS_REFER": 1 << landlock.ACCESSES[1],
    "BPF_LD | BPF_W | BPF_ABS": bpf.LOAD_WORD,
    "BPF_JMP | BPF_JEQ | BPF_K": bpf.EQUAL,
    "BPF_JMP | BPF_JGE | BPF_K": bpf.AT_LEAST,
    "BPF_JMP | BPF_JSET | BPF_K": bpf.SHARES,
    "BPF_RET | BPF_K": bpf.RETURN,
    "BPF_LD | BPF_H | BPF_ABS": bpf.LOAD_HALF,
    "BPF_LD | BPF_B | BPF_ABS": bpf.LOAD_BYTE,
    "BPF_LD | BPF_B | BPF_IND": bpf.LOAD_BYTE_INDEXED,
    "BPF_LDX | BPF_B | BPF_MSH": bpf.LOAD_HEADER,
    "(__u32)SKF_NET_OFF": lookup.SKF_NET_OFF,
    "offsetof(struct seccomp_data, nr)": seccomp.NUMBER,
    "offsetof(struct seccomp_data, arch)": seccomp.MACHINE,
    "offsetof(struct seccomp_data, args[3])": seccomp.FOURTH,
    "MSG_FASTOPEN": seccomp.MSG_FASTOPEN,
    "MSG_ERRQUEUE": echoes.MSG_ERRQUEUE,
    "SO_ATTACH_FILTER": bpf.SO_ATTACH_FILTER,
    "AF_XDP": features.AF_XDP,
    "283": xdp.SOL_XDP,
    "XDP_RX_RING": xdp.XDP_RX_RING,
    "XDP_UMEM_REG": xdp.XDP_UMEM_REG,
    "XDP_UMEM_FILL_RING": xdp.XDP_UMEM_FILL_RING,
    "XDP_UMEM_COMPLETION_RING": xdp.XDP_UMEM_COMPLETION_RING,
    "XDP_SHARED_UMEM": xdp.XDP_SHARED_UMEM,
    "XDP_COPY": xdp.XDP_COPY,
    "MEMBARRIER_CMD_GLOBAL": features.MEMBARRIER_GLOBAL,
    "NS_GET_USERNS": features.NS_GET_USERNS,
    "NS_GET_NSTYPE": netns.NS_GET_NSTYPE,
    "CLONE_NEWNET": netns.CLONE_NEWNET,
    "SIOCGIFINDEX": netns.SIOCGIFINDEX,
    "SIOCGIFFLAGS": link_down.SIOCGIFFLAGS,
    "SIOCSIFFLAGS": link_down.SIOCSIFFLAGS,
    "SOL_NETLINK": netlink.SOL_NETLINK,
    "NETLINK_CAP_ACK": netlink.NETLINK_CAP_ACK,
    "NETLINK_EXT_ACK": netlink.NETLINK_EXT_ACK,
    "NETLINK_GET_STRICT_CHK": netlink.NETLINK_GET_STRICT_CHK,
    "NETLINK_NETFILTER": conntrack.NETLINK_NETFILTER,
    "NETLINK_SOCK_DIAG": listeners.NETLINK_SOCK_DIAG,
    "NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETGEN": program.GET_GENERATION,
    "NFNL_SUBSYS_NFTABLES << 8 | NFT_MSG_GETTABLE": program.GET_TABLE,
    "NFNL_SUBSYS_CTNETLINK << 8": conntrack.CTNETLINK,
    "RTMGRP_LINK": watch.RTMGRP_LINK,
    "1u << (RTNLGRP_IPV6_RULE - 1)": watch.RTMGRP_IPV6_RULE,
    "1u << (RTNLGRP_NEXTHOP - 1)": watch.RTMGRP_NEXTHOP,
    "ETH_P_ALL": witness.ETH_P_ALL,
    "PACKET_OUTGOING": witness.PACKET_OUTGOING,
    "IPT_SO_GET_INFO": raw.GET_INFO,
    "IP6T_SO_GET_INFO": raw.GET_INFO,
    "IPT_SO_GET_ENTRIES": raw.GET_ENTRIES,
    "IP6T_SO_GET_ENTRIES": raw.GET_ENTRIES,
    "IPT_SO_GET_REVISION_MATCH": matches._SOCKETS[Family.IPV4][2],
    "IP6T_SO_GET_REVISION_MATCH": matches._SOCKETS[Family.IPV6][2],
    "IP6T_F_PROTO": packing._HAS_PROTOCOL,
}
SIZES = {
    "sizeof(struct sock_filter)": bpf.INSTRUCTION.size,
    # sock_fprog, with the pointer where gateway.system.bpf puts it
    "sizeof(struct sock_fprog)": 16,
    "offsetof(struct sock_fprog, filter)": 8,
    "sizeof(struct ifreq)": netns.REQUEST.size,
    "sizeof(struct ifreq) + 0": link_down.REQUEST.size,
    "offsetof(struct ifreq, ifr_flags)": 16,
    "sizeof(struct timeval)": questions.TIMEVAL.size,
    "sizeof(struct nlmsghdr)": netlink.HEADER.size,
    "sizeof(struct nlmsghdr) + 0": vault_process.HEADER,
    "sizeof(struct nlattr)": netlink.ATTRIBUTE.size,
    "sizeof(struct nfgenmsg)": program.NFGENMSG_LENGTH,
    "sizeof(struct rtmsg)": route_reading.RTMSG.size,
    "sizeof(struct rtmsg) + 0": link_alias.ROUTE.size,
    "sizeof(struct rtnexthop)": route_reading.NEXT_HOP.size,
    "sizeof(struct ifinfomsg)": link_settings.LINK_MESSAGE.size,
    "sizeof(struct ifaddrmsg)": link_alias.ADDRESS.size,
    "offsetof(struct sock_extended_err, ee_info)": echoes.EXTENDED_ERROR.size,
    "offsetof(struct xdp_umem_reg, flags)": xdp.UMEM.size,
    "sizeof(struct sockaddr_xdp)": xdp.ADDRESS.size,
    "sizeof(struct inet_diag_req_v2)": listeners.ASKED.size,
    "sizeof(struct inet_diag_msg)": listeners.FOUND.size,
    "sizeof(struct ipt_getinfo)": raw.INFO.size,
    "sizeof(struct ip6t_getinfo)": raw.INFO.size,
    "offsetof(struct ipt_get_entries, entrytable)": raw.REQUEST.size,
    "offsetof(struct ip6t_get_entries, entrytable)": raw.REQUEST.size,
    "sizeof(struct ipt_ip)": entry.HEADER_SIZE[Family.IPV4],
    "sizeof(struct ip6t_ip6)": entry.HEADER_SIZE[Family.IPV6],
    "sizeof(struct ipt_entry)": entry.ENTRY_SIZE[Family.IPV4],
    "sizeof(struct ip6t_entry)": entry.ENTRY_SIZE[Family.IPV6],
    "offsetof(struct ipt_ip, proto)": packing._PROTOCOL_OFFSET[Family.IPV4],
    "offsetof(struct ip6t_ip6, proto)": packing._PROTOCOL_OFFSET[Family.IPV6],
    "sizeof(struct xt_counters)": entry.COUNTERS.size,
    "sizeof(struct xt_entry_match)": entry.EXTENSION.size,
    "sizeof(struct xt_standard_target)": packing._STANDARD.size,
    "sizeof(struct xt_multiport_v1)": packing._MULTIPORT.size,
    "(sizeof(struct xt_tcp) + 7) / 8 * 8": packing._RANGES[Transport.TCP].size,
    "(sizeof(struct xt_udp) + 7) / 8 * 8": packing._RANGES[Transport.UDP].size,
    "sizeof(struct xt_get_revision)": matches._REVISION.size,
}


def values_of(expressions: list[str], directory: Path) -> dict[str, int]:
    """Return the values of expressions of C, by a program that this machine compiles and runs."""
    lines = [f"#include <{name}>" for name in HEADERS]
    lines += ["int main(void) {"]
    lines += [f'printf("%llu\\n", (unsigned long long)({one}));' for one in expressions]
    lines += ["return 0; }"]
    source, compiled = directory / "numbers.c", directory / "numbers"
    source.write_text("\n".join(lines), "ascii")
    made = subprocess.run(
        ["gcc", "-D_GNU_SOURCE", "-o", compiled, source],
        capture_output=True,
        text=True,
        check=False,
    )
    assert made.returncode == 0, made.stderr
    printed = subprocess.run([compiled], stdout=subprocess.PIPE, text=True, check=True).stdout
    return dict(zip(expressions, map(int, printed.split()), strict=True))


def test_numbers_and_layouts_are_those_of_the_kernel(tmp_path: Path) -> None:
    """On the machine that the test runs on, whichever architecture it has."""
    if shutil.which("gcc") is None:
        skip_or_fail("the kernel's headers are read by gcc")
    wanted = here() | CONSTANTS | SIZES
    assert values_of(list(wanted), tmp_path) == wanted


def test_other_files_repeat_the_same_numbers() -> None:
    """They import as little as they can."""
    assert confined.CAPABILITY_VERSION == rights.CAPABILITY_VERSION
    assert vault_process.CAPABILITY_VERSION == rights.CAPABILITY_VERSION
    assert confined.PR_SET_NO_NEW_PRIVS == rights.PR_SET_NO_NEW_PRIVS
    assert seccomp.CALLS.keys() == seccomp.SENDTO.keys() <= features.MEMBARRIER.keys()


@pytest.mark.parametrize(("machine", "header"), [("x86_64", X86_64), ("aarch64", GENERIC)])
def test_calls_of_the_other_architecture_have_its_numbers(machine: str, header: Path) -> None:
    """The headers of Linux on x86_64 have those of arm64 as well."""
    if not header.exists():
        assert machine != os.uname().machine
        return
    listed = dict(
        re.findall(r"^#define (__NR_\w+) (\d+)$", header.read_text("ascii"), re.MULTILINE)
    )
    wanted = {name: number for name, number in here(machine).items() if name.startswith("__NR_")}
    assert {name: int(listed[name]) for name in wanted} == wanted
