package link

// String is the word that clients see in a gap message and operators in metrics.
func (r GapReason) String() string {
	switch r {
	case GapNone:
		return "none"
	case GapRetention:
		return "retention"
	case GapReplayLimit:
		return "replay_limit"
	case GapTopic:
		return "topic"
	case GapTruncated:
		return "truncated"
	case GapTooLarge:
		return "too_large"
	case GapMoved:
		return "moved"
	}
	return "unknown"
}

// String is the word that operators see in logs and metrics.
func (r ClosedReason) String() string {
	switch r {
	case ClosedTopic:
		return "topic"
	case ClosedPartition:
		return "partition"
	case ClosedError:
		return "error"
	}
	return "unknown"
}

// String is the word that operators see in logs.
func (k StartKind) String() string {
	switch k {
	case StartCursor:
		return "cursor"
	case StartOffset:
		return "offset"
	case StartTime:
		return "time"
	case StartLatest:
		return "latest"
	case StartEarliest:
		return "earliest"
	}
	return "invalid"
}
