// The frame of a picture over time: its title, what is under the pointer, and the same as a table for those who do not see it.
import type { ComponentChildren, Ref } from "preact";
import { clock, exact } from "../format";
import { tableRows } from "./figures";
import { TableFrame } from "./parts";

export interface Column {
  label: string;
  /** The value of a row, with its unit. */
  value: (index: number) => string;
}

export interface PictureProps {
  title: string;
  note?: string;
  /** All that is to be known of it, in one sentence or two. */
  words: string;
  plot: Ref<HTMLDivElement>;
  /** The start of each point's span. */
  timesMs: readonly number[];
  /** The point that the legend is about. */
  at: number;
  legend: ComponentChildren;
  columns: readonly Column[];
}

export function Picture({ title, note, words, plot, timesMs, at, legend, columns }: PictureProps) {
  const time = timesMs[at];
  return (
    <figure class="chart" data-chart={title}>
      <figcaption>
        <h3>
          {title} {note && <span class="note">{note}</span>}
        </h3>
        <span class="note at">{time === undefined ? "" : clock(time)}</span>
        <ul class="legend">{legend}</ul>
      </figcaption>
      <div ref={plot} class="plot" role="img" aria-label={words} />
      <details>
        <summary>{title} as a table</summary>
        <TableFrame label={`${title}, figures`}>
          <table>
            <thead>
              <tr>
                <th scope="col">Time</th>
                {columns.map(({ label }) => (
                  <th scope="col" class="number" key={label}>
                    {label}
                  </th>
                ))}
              </tr>
            </thead>
            <tbody>
              {tableRows(timesMs).map((index) => (
                <tr key={timesMs[index]}>
                  <th scope="row" title={exact(timesMs[index]!)}>
                    {clock(timesMs[index]!)}
                  </th>
                  {columns.map(({ label, value }) => (
                    <td class="number" key={label}>
                      {value(index)}
                    </td>
                  ))}
                </tr>
              ))}
            </tbody>
          </table>
        </TableFrame>
      </details>
    </figure>
  );
}
