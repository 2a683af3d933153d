"""Write `report.html` of many recordings, a single file without scripts that opens offline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote

from marigold_ros.evaluation.report.fleet_tables import (
    basis_label,
    describe_basis,
    fleet_tables,
    ONLY_ONE,
)
from marigold_ros.evaluation.report.html import load_template
from marigold_ros.evaluation.report.pictures import data_uri
from marigold_ros.evaluation.report.regressions import BLOCKS_TO_DECIDE, VERDICTS

TEMPLATE = 'fleet.html.j2'


def write_fleet_page(path: Path, summary: Mapping[str, Any]) -> None:
    """
    Write the page.

    Parameters
    ----------
    path : Path
        Its folder is the one that `summary` names pictures and recordings relative to.
    summary : mapping
        See `fleet.SCHEMA`.
    """
    states = Counter(each['state'] for each in summary['recordings'])
    text = load_template(TEMPLATE).render(
        summary=summary, states=states, count=sum(states.values()),
        frames=sum(each['frames'] or 0 for each in summary['recordings']),
        tables={table.name: table for table in fleet_tables(summary)},
        links={each['name']: quote(f'{each["folder"]}/report.html')
               for each in summary['recordings'] if each['state'] != 'failed'},
        verdict=_describe_regressions(summary['regressions']),
        blocks_to_decide=BLOCKS_TO_DECIDE,
        basis=basis_label(summary), only_one=ONLY_ONE,
        seconds=[{**each, 'basis': describe_basis(each),
                  'uri': data_uri((path.parent / each['picture']).read_bytes())}
                 for each in summary['worst_seconds']])
    path.write_text(text, encoding='utf-8')


def _describe_regressions(regressions: Mapping[str, Any]) -> str:
    """Count the recordings by verdict in a sentence; '' without a baseline."""
    if not regressions:
        return ''
    rows = regressions['recordings']
    counts = Counter(row['verdict'] for row in rows)
    return (f'Of {len(rows)} recordings that the baseline has too: '
            + ', '.join(f'{counts[verdict]} {verdict}' for verdict in VERDICTS if counts[verdict])
            + '.') if rows else 'The baseline has none of these recordings.'
