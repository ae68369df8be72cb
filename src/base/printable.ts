/**
 * Text that others chose (names of initiators, labels on disks) made safe to show: what is no visible character is
 * written as its number. Otherwise a stranger could steer the terminal of whoever reads the log (C0 and C1 control
 * characters), turn a line around (bidirectional overrides) or begin one of its own. base/log.ts passes every line
 * through here; other places that show such text do so themselves.
 */

/** Unicode's categories of control, format, surrogate, private and unassigned characters, and its line ends. */
const INVISIBLE = /[\p{C}\p{Zl}\p{Zp}]/gu

/** The text with each invisible character as `\u009b`, one for each UTF-16 unit: the form that JSON reads back. */
export function printable(text: string): string {
  return text.replace(INVISIBLE, (character) =>
    Array.from(
      { length: character.length },
      (_, i) => `\\u${character.charCodeAt(i).toString(16).padStart(4, '0')}`,
    ).join(''),
  )
}
