package lean

import (
	"bytes"
	"strconv"
)

// Stamp is what a record of a benchmark says of itself.
type Stamp struct {
	Epoch int64 // of the run that it belongs to
	Key   int64 // number of the key
	Seq   int64 // of the key's records, from 0
	Sent  int64 // nanoseconds since the Unix epoch
}

const mark = `"#":[`

// AppendValue appends a record's value, JSON of the given size or the least that holds the stamp.
func AppendValue(dst []byte, s Stamp, size int) []byte {
	begin := len(dst)
	dst = append(dst, "{"+mark...)
	for i, n := range []int64{s.Epoch, s.Key, s.Seq, s.Sent} {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = strconv.AppendInt(dst, n, 10)
	}
	dst = append(dst, `],"p":"`...)
	for pad := size - (len(dst) - begin) - 2; pad > 0; pad-- {
		dst = append(dst, 'x')
	}
	return append(dst, '"', '}')
}

// readStamp finds the stamp in a message; false when it carries no record.
func readStamp(msg []byte) (s Stamp, ok bool) {
	at := bytes.Index(msg, []byte(mark))
	if at < 0 {
		return s, false
	}
	rest := msg[at+len(mark):]
	for i, n := range []*int64{&s.Epoch, &s.Key, &s.Seq, &s.Sent} {
		digits := 0
		for digits < len(rest) && rest[digits] >= '0' && rest[digits] <= '9' {
			*n = *n*10 + int64(rest[digits]-'0')
			digits++
		}
		end := byte(',')
		if i == 3 {
			end = ']'
		}
		if digits == 0 || digits >= len(rest) || rest[digits] != end {
			return s, false
		}
		rest = rest[digits+1:]
	}
	return s, true
}
