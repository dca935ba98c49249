const all = Boolean(process.env['LAB_TEST_ALL'])

/**
 * Those of many tests of a kind that `npm test` takes, which has to end in a CI's time on two slow cores:
 * `few` of them, from the first to the last at equal distances. With LAB_TEST_ALL=1 it takes all.
 */
export const sample = <T>(tests: readonly T[], few: number): T[] =>
  all || tests.length <= few
    ? [...tests]
    : Array.from(
        { length: few },
        (_, index) => tests[Math.round((index * (tests.length - 1)) / (few - 1))]!,
      )

/** A number of rounds: `few`, or `many` with LAB_TEST_ALL=1. */
export const fewer = (few: number, many: number): number => (all ? many : few)
