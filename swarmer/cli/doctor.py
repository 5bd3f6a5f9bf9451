"""What this machine can run: doctor."""

from dataclasses import asdict

import click

from swarmer.cli.common import json_option, print_json, print_table, spec_options
from swarmer.spec import Spec
from swarmer.stacks import stack_class
from swarmer.stacks.findings import Verdict
from swarmer.state import ClusterHome


@click.command()
@spec_options
@json_option
def doctor(spec: Spec, as_json: bool) -> None:
    """Look at this machine and print what will and won't work.

    Each line is `ok`; `limited`, if a cluster boots without it; `fails`, if none boots; or `unknown`, mostly without
    root. The exit status is 1 if a line is `fails`. Nothing is changed, except that the kernel may load modules.

    \b
      swarmer doctor
      swarmer doctor --stack vagrant
      swarmer doctor --json
    """
    found = list(stack_class(spec.stack).examine(spec, ClusterHome(spec.stack, spec.dc)))
    if as_json:
        print_json([asdict(finding) for finding in found])
    else:
        print_table(["VERDICT", "SUBJECT", "REASON"], [[f.verdict, f.subject, f.reason] for f in found])
        for finding in found:
            if finding.hint:
                click.echo(f"hint: {finding.subject}: {finding.hint}")
    if any(finding.verdict is Verdict.FAILS for finding in found):
        click.get_current_context().exit(1)
