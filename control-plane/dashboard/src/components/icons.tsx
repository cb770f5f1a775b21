// The few drawings the page uses. They are decoration: whatever they mean is also said in words beside them.
import type { ComponentChildren } from "preact";
import type { Health } from "../health";

function Icon({ children, size = 16, class: name = "" }: { children: ComponentChildren; size?: number; class?: string }) {
  return (
    <svg class={`icon ${name}`} width={size} height={size} viewBox="0 0 16 16" aria-hidden="true" focusable="false">
      {children}
    </svg>
  );
}

/** A shape per health, so that colour is never alone: disc with a tick, triangle, cross, ring. */
export function HealthShape({ health }: { health: Health }) {
  return (
    <Icon class={`health-shape ${health}`} size={14}>
      {health === "good" && (
        <>
          <circle cx="8" cy="8" r="7" fill="currentColor" />
          <path d="M4.8 8.2l2.2 2.2 4.2-4.6" class="knockout" />
        </>
      )}
      {health === "degraded" && (
        <>
          <path d="M8 1.2L15.4 14.4H.6z" fill="currentColor" />
          <path d="M8 6v4M8 11.8v.4" class="knockout" />
        </>
      )}
      {health === "failing" && (
        <>
          <path d="M5 1h6l4 4v6l-4 4H5l-4-4V5z" fill="currentColor" />
          <path d="M5.6 5.6l4.8 4.8M10.4 5.6l-4.8 4.8" class="knockout" />
        </>
      )}
      {health === "idle" && <circle cx="8" cy="8" r="5.8" fill="none" stroke="currentColor" stroke-width="1.8" stroke-dasharray="2.6 2" />}
    </Icon>
  );
}

/** A closed padlock, drawn in a box of 10 by 12. */
export function LockPaths() {
  return (
    <>
      <path d="M2.6 5.2V3.6a2.4 2.4 0 0 1 4.8 0v1.6" fill="none" stroke="currentColor" stroke-width="1.3" />
      <rect x="1" y="5.2" width="8" height="6.2" rx="1.4" fill="currentColor" />
    </>
  );
}

/** An open padlock, struck through. */
export function UnlockedPaths() {
  return (
    <>
      <path d="M2.6 5.2V3.6a2.4 2.4 0 0 1 4.6-.9" fill="none" stroke="currentColor" stroke-width="1.3" />
      <rect x="1.6" y="5.8" width="6.8" height="5" rx="1.2" fill="none" stroke="currentColor" stroke-width="1.3" />
    </>
  );
}

export function Lock({ closed }: { closed: boolean }) {
  return (
    <svg class={`icon lock ${closed ? "closed" : "open"}`} width="11" height="13" viewBox="0 0 10 12" aria-hidden="true">
      {closed ? <LockPaths /> : <UnlockedPaths />}
    </svg>
  );
}

export function Sun() {
  return (
    <Icon>
      <circle cx="8" cy="8" r="3.2" fill="currentColor" />
      <path
        d="M8 .8v2M8 13.2v2M.8 8h2M13.2 8h2M2.9 2.9l1.4 1.4M11.7 11.7l1.4 1.4M2.9 13.1l1.4-1.4M11.7 4.3l1.4-1.4"
        stroke="currentColor"
        stroke-width="1.4"
        stroke-linecap="round"
      />
    </Icon>
  );
}

export function Moon() {
  return (
    <Icon>
      <path d="M13.6 10.2A6.2 6.2 0 0 1 5.8 2.4a6.2 6.2 0 1 0 7.8 7.8z" fill="currentColor" />
    </Icon>
  );
}

export function Pause() {
  return (
    <Icon size={12}>
      <path d="M3 2h3.6v12H3zM9.4 2H13v12H9.4z" fill="currentColor" />
    </Icon>
  );
}

export function Play() {
  return (
    <Icon size={12}>
      <path d="M3.5 1.8l10 6.2-10 6.2z" fill="currentColor" />
    </Icon>
  );
}

export function Plus() {
  return (
    <Icon size={14}>
      <path d="M8 2.5v11M2.5 8h11" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" />
    </Icon>
  );
}

export function Minus() {
  return (
    <Icon size={14}>
      <path d="M2.5 8h11" stroke="currentColor" stroke-width="1.8" stroke-linecap="round" />
    </Icon>
  );
}

export function FitAll() {
  return (
    <Icon size={14}>
      <path d="M2 5.5V2h3.5M10.5 2H14v3.5M14 10.5V14h-3.5M5.5 14H2v-3.5" fill="none" stroke="currentColor" stroke-width="1.7" stroke-linecap="round" stroke-linejoin="round" />
    </Icon>
  );
}

export function Mark() {
  return (
    <svg class="mark" width="26" height="26" viewBox="0 0 32 32" aria-hidden="true">
      <rect width="32" height="32" rx="8" fill="var(--accent)" />
      <circle cx="12.5" cy="19.5" r="6" fill="none" stroke="var(--on-accent)" stroke-width="3" />
      <circle cx="21.5" cy="11.5" r="4" fill="var(--on-accent)" />
    </svg>
  );
}
