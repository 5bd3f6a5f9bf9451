"""The mutants: each breaks one protection, and names the tests that are to notice."""

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True)
class Mutant:
    """One protection, broken.

    Attributes:
        name: of the mutant, for the command line.
        protection: what holds as long as it isn't broken.
        broken: how it is broken, in a few words.
        changes: files with the text to replace, which is there exactly once, and its replacement.
        tests: arguments of pytest: the tests that are to notice.
    """

    name: str
    protection: str
    broken: str
    changes: tuple[tuple[str, str, str], ...]
    tests: tuple[str, ...]


CONSUL_SECURITY: Final = "scenarios/test_consul_security.py"
STRANGERS: Final = "scenarios/test_strangers.py"
REGISTRY_ACCESS: Final = "scenarios/test_registry_access.py"

MUTANTS: Final = (
    # -- consul --------------------------------------------------------------------------------------------
    Mutant(
        "acl-default-deny",
        "without a token, nothing in consul can be read or written",
        "the ACL default policy is allow",
        (("swarmer/seed/consul.py", '"default_policy": "deny"', '"default_policy": "allow"'),),
        (f"{CONSUL_SECURITY}::test_without_a_token_nothing_can_be_read_or_written",),
    ),
    Mutant(
        "consul-verify-incoming",
        "consul talks to nobody without a certificate of the cluster",
        "`verify_incoming` is false",
        (
            (
                "swarmer/seed/consul.py",
                'config |= {"verify_incoming": True,',
                'config |= {"verify_incoming": False,',
            ),
        ),
        (
            f"{CONSUL_SECURITY}::test_a_caller_without_a_client_certificate_is_turned_away",
            f"{CONSUL_SECURITY}::test_rpc_refuses_plain_connections",
        ),
    ),
    Mutant(
        "gossip-key",
        "gossip is encrypted with the cluster's key",
        "no `encrypt` in consul's configuration",
        (("swarmer/seed/consul.py", '        "encrypt": credentials.gossip_key,\n', ""),),
        (f"{CONSUL_SECURITY}::test_an_agent_with_another_gossip_key_is_refused_for_its_key",),
    ),
    Mutant(
        "agent-token",
        "the token of a node is good for the entries of that node alone",
        "the agent's rule covers all nodes",
        (
            (
                "image/rootfs/usr/share/swarmer/acl/agent.hcl",
                'node_prefix "" { policy = "read" }',
                'node_prefix "" { policy = "write" }',
            ),
        ),
        (f"{CONSUL_SECURITY}::test_the_token_of_a_node_is_good_for_that_node_only",),
    ),
    Mutant(
        "dns-token",
        "who asks for names may look at all services",
        "the rule for DNS lacks the services",
        (("image/rootfs/usr/share/swarmer/acl/dns.hcl", 'service_prefix "" { policy = "read" }\n', ""),),
        ("scenarios/test_dns.py::test_every_node_answers_the_names_of_services_with_all_that_are_healthy",),
    ),
    Mutant(
        "consul-min-quorum",
        "a consul server that is only cut off stays a peer",
        "autopilot may remove all but one server",
        (("swarmer/seed/consul.py", '"min_quorum": len(voters),', '"min_quorum": 1,'),),
        ("scenarios/test_consul_ha.py::test_a_server_that_is_off_stays_a_peer",),
    ),
    # -- docker and the swarm ------------------------------------------------------------------------------
    Mutant(
        "docker-tlsverify",
        "docker's API is open to clients of the docker plane alone",
        "`tlsverify` is false",
        (("swarmer/seed/docker.py", '"tlsverify": True', '"tlsverify": False'),),
        (
            "scenarios/test_docker_security.py::test_the_other_planes_clients_are_no_docker_clients",
            "scenarios/test_docker_security.py::test_with_what_a_node_has_it_is_no_administrator_of_its_peers",
        ),
    ),
    Mutant(
        "swarm-quorum-before-demotion",
        "a manager is only demoted while the others are a quorum without it",
        "`spares` always says yes",
        (
            (
                "swarmer/node/swarm/reconcile.py",
                'return reachable > len(others) // 2 and not manager["ManagerStatus"].get("Leader")',
                "return reachable >= 0",
            ),
        ),
        ("tests/test_swarm_reconcile.py",),
    ),
    # -- the packet filter ---------------------------------------------------------------------------------
    Mutant(
        "ports-among-nodes",
        "the ports among nodes take packets from nodes alone",
        "the filter accepts what it would drop",
        (
            (
                "image/rootfs/usr/share/swarmer/firewall.nft",
                "\t\tcounter drop\n\t}\n\n\t# Containers",
                "\t\taccept\n\t}\n\n\t# Containers",
            ),
        ),
        (
            f"{STRANGERS}::test_the_ports_among_nodes_are_open_to_nodes_alone",
            f"{STRANGERS}::test_a_frame_of_a_stranger_does_not_arrive_in_a_network_over_all_nodes",
        ),
    ),
    Mutant(
        "vxlan-from-containers",
        "a container on the network of the node sends no overlay packets",
        "the chain of leaving packets accepts them",
        (("image/rootfs/usr/share/swarmer/firewall.nft", "meta skuid 0-4294967295 counter drop", "accept"),),
        (f"{STRANGERS}::test_a_frame_of_a_container_does_not_arrive_in_a_network_over_all_nodes",),
    ),
    Mutant(
        "firewall-required",
        "a node that can't load its packet filter runs no consul",
        "consul.service doesn't require the filter",
        (
            (
                "image/rootfs/etc/systemd/system/consul.service",
                "Requires=swarmer-firewall.service\nAfter=swarmer-firewall.service\n",
                "",
            ),
        ),
        (
            f"{STRANGERS}::test_the_packet_filter_is_in_force_before_what_it_protects",
            f"{STRANGERS}::test_a_node_that_can_not_load_its_packet_filter_does_not_come_up",
        ),
    ),
    # -- the registry --------------------------------------------------------------------------------------
    Mutant(
        "registry-anonymous",
        "without a certificate or a password, the registry gives nothing",
        "the unknown may pull",
        (
            (
                "swarmer/node/registry/access.py",
                "return Right.PULL if node_of(credentials, settings) else Right.NONE",
                "return Right.PULL",
            ),
        ),
        (f"{REGISTRY_ACCESS}::test_the_anonymous_get_401_and_where_to_get_a_token", "tests/test_registry_rights.py"),
    ),
    Mutant(
        "registry-majority",
        "an image is acknowledged once a majority has it on its disks",
        "the leader alone is enough",
        (("swarmer/node/registry/replication.py", "needed = self._settings.majority - 1", "needed = 0"),),
        ("scenarios/test_registry_failover.py::test_what_only_the_leader_can_have_is_not_acknowledged",),
    ),
    Mutant(
        "registry-lock-delay",
        "a former leader of the registry changes nothing after another one may lead",
        "no delay between two leaders",
        (
            (
                "swarmer/node/registry/leadership.py",
                '"LockDelay": f"{LOCK_DELAY * 1000:.0f}ms"',
                '"LockDelay": "0ms"',
            ),
        ),
        (
            "tests/test_registry_lease.py",
            "scenarios/test_registry_failover.py::test_between_two_leaders_lies_the_time_in_which_the_former_one_stops",
        ),
    ),
    Mutant(
        "registry-content-checked",
        "a node takes a manifest from a peer only if it has the digest that was asked for",
        "the digest isn't compared",
        (("swarmer/node/registry/replication.py", "if manifests.digest_of(content) != digest:", "if False:"),),
        ("tests/test_registry_replication.py",),
    ),
    # -- DNS -----------------------------------------------------------------------------------------------
    Mutant(
        "dns-all-servers",
        "names resolve while a node's own agent is frozen",
        "dnsmasq asks one server after the other",
        (("image/rootfs/etc/dnsmasq.conf", "\nall-servers\n", "\n"),),
        ("scenarios/test_dns.py::test_a_node_resolves_while_its_own_agent_is_frozen",),
    ),
    # -- secrets -------------------------------------------------------------------------------------------
    Mutant(
        "masking",
        "no secret is in what is printed or collected",
        "masking returns the text as it is",
        (("swarmer/secrets/credentials.py", "return self._secrets.sub(MASK, text)", "return text"),),
        ("tests/test_credentials.py",),
    ),
    Mutant(
        "seed-mode",
        "seed data can be read by root alone",
        "its files are written with the usual mode",
        (
            (
                "swarmer/stacks/nspawn/stack.py",
                "write_private(seed_folder / name, content)",
                "(seed_folder / name).write_text(content)",
            ),
        ),
        ("scenarios/test_boot.py::test_secrets_on_a_node_are_readable_by_their_service_only",),
    ),
    Mutant(
        "name-constraints",
        "the CAs vouch for names of their cluster alone",
        "the root has no name constraints",
        (
            (
                "swarmer/secrets/issuer.py",
                "            .add_extension(scope.constraints, critical=True)\n",
                "",
            ),
            ("swarmer/secrets/issuer.py", "    _check_scope(certificate_file, issuer.certificate, scope)\n", ""),
        ),
        ("tests/test_name_constraints.py",),
    ),
    # -- the harness ---------------------------------------------------------------------------------------
    Mutant(
        "unreachable-route",
        "no packet for a node leaves this host by the default route",
        "the route isn't made",
        (
            (
                "swarmer/stacks/host_network.py",
                'run(["ip", "route", "replace", "unreachable", *route.split()])',
                "pass",
            ),
        ),
        ("tests/test_nspawn_network.py",),
    ),
    Mutant(
        "ledger-first",
        "what a killed run leaves is removed by the next one",
        "the network isn't written down",
        (
            (
                "swarmer/stacks/nspawn/stack.py",
                '        self.ledger.record("network", network.namespace(self.home))\n',
                "",
            ),
        ),
        ("tests/test_harness.py::test_after_kill_9_the_garbage_collection_removes_all_that_is_left",),
    ),
    Mutant(
        "power-off",
        "a node that is powered off says no goodbye",
        "its processes are asked to end",
        (
            (
                "swarmer/stacks/nspawn/processes.py",
                '(group / "cgroup.kill").write_text("1")',
                'run(["sh", "-c", f"kill -RTMIN+4 $(head -1 {group}/cgroup.procs)"], check=False)',
            ),
        ),
        (
            "scenarios/test_consul_ha.py::test_an_acknowledged_write_survives_the_power_off_of_the_leader",
            "scenarios/test_boot.py::test_an_image_without_seed_data_stays_idle",
        ),
    ),
    Mutant(
        "health-gate",
        "a scenario that leaves a broken cluster fails, and the next one gets a fresh cluster",
        "the gate doesn't wait for the cluster to converge",
        (("fixtures/cluster.py", "        cluster.wait_converged(timeout=30)\n", "        pass\n"),),
        ("tests/test_harness.py::test_the_scenario_that_broke_the_cluster_is_blamed_and_the_next_gets_a_fresh_one",),
    ),
    Mutant(
        "audit",
        "a unit that failed during a scenario fails the scenario",
        "the audit looks for another message",
        (("swarmer/audit.py", '"d9b373ed55a64feb8242e02dbe79a49c"', '"00000000000000000000000000000000"'),),
        ("tests/test_audit.py",),
    ),
    Mutant(
        "ownership",
        "two processes never run the same cluster",
        "the lock is always taken",
        (("swarmer/ledger.py", "lambda: fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB),", "lambda: None,"),),
        ("tests/test_ledger.py",),
    ),
    Mutant(
        "faults-heal",
        "a fault is healed also when another node can't be healed",
        "healing stops at the first error",
        (("swarmer/undo.py", "        except _FAILURES as error:", "        except ZeroDivisionError as error:"),),
        ("tests/test_faults.py",),
    ),
)
