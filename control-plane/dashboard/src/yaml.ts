// A document as YAML, as people write it: enough for what the API answers, which has no cycles, dates or functions.
type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

/** Words that YAML takes for something else than text (numbers and dates, but not `10s`), or that begin or contain what has a meaning there. */
const SPECIAL = /^(?:true|false|null|yes|no|on|off|y|n|~|[-+]?[.\d][\da-fxotz._:+-]*|\.inf|\.nan)?$|^[\s\-?:,[\]{}#&*!|>'"%@`=]|: |:$| #|\s$|[\u0000-\u0008\u000b-\u001f\u007f]/i;

export function toYaml(value: Json): string {
  return `${block(value, 0).trimStart()}\n`;
}

function block(value: Json, depth: number): string {
  const indent = "  ".repeat(depth);
  if (Array.isArray(value)) {
    if (value.length === 0) return " []";
    // What a list holds begins behind its dash, and goes on under that.
    return value.map((item) => `\n${indent}- ${block(item, depth + 1).replace(/^\s+/, "")}`).join("");
  }
  if (value !== null && typeof value === "object") {
    const entries = Object.entries(value);
    if (entries.length === 0) return " {}";
    return entries.map(([name, item]) => `\n${indent}${word(name)}:${block(item, depth + (Array.isArray(item) ? 0 : 1))}`).join("");
  }
  if (typeof value === "string") return ` ${text(value, indent)}`;
  return ` ${String(value)}`;
}

function text(value: string, indent: string): string {
  // Many lines stay many lines, where nothing of them would be lost.
  if (value.includes("\n") && !/^\s|[\u0000-\u0008\u000b-\u001f\u007f]|[ \t]\n/.test(value)) {
    const chomp = value.endsWith("\n\n") ? "+" : value.endsWith("\n") ? "" : "-";
    const lines = value.replace(/\n$/, "").split("\n");
    return `|${chomp}\n${lines.map((line) => (line === "" ? "" : `${indent || "  "}${line}`)).join("\n")}`;
  }
  return word(value);
}

function word(value: string): string {
  return SPECIAL.test(value) ? JSON.stringify(value) : value;
}
