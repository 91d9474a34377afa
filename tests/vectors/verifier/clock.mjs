// A node's clock, judged by those of operators (section 6.11).

const MIN_OPERATORS = 3;

/** Return how far the operators' clocks are ahead in seconds, null if too few have answered. */
export function difference(answers, roster) {
  const operatorOf = new Map(roster.map((member) => [member.get("peer"), member.get("operator")]));
  const byOperator = new Map();
  for (const { peer, seconds } of answers) {
    const operator = operatorOf.get(peer);
    if (operator === undefined) continue;
    byOperator.set(operator, [...(byOperator.get(operator) ?? []), seconds]);
  }
  if (byOperator.size < MIN_OPERATORS) return null;
  return median([...byOperator.values()].map(median));
}

function median(numbers) {
  const sorted = [...numbers].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
