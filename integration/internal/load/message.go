package load

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"time"

	"github.com/pointsmanhq/pointsman/integration/internal/checker"
)

// message is any message of pointsman.json.v1, read by encoding/json and not by the product's own decoder: an
// error that both ends of the product share would stay unseen otherwise.
type message struct {
	Type         string          `json:"type"`
	Cursor       string          `json:"cursor"`
	Resumed      bool            `json:"resumed"`
	HeartbeatMS  int64           `json:"heartbeat_ms"`
	Partition    int32           `json:"partition"`
	Offset       int64           `json:"offset"`
	Timestamp    time.Time       `json:"timestamp"`
	Headers      []messageHeader `json:"headers"`
	Value        json.RawMessage `json:"value"`
	Text         *string         `json:"text"`
	Base64       *string         `json:"base64"`
	Tombstone    bool            `json:"tombstone"`
	Reason       string          `json:"reason"`
	RetryAfterMS int64           `json:"retry_after_ms"`
}

type messageHeader struct {
	Key    string  `json:"key"`
	Text   *string `json:"text"`
	Base64 *string `json:"base64"`
}

// value is the record's value as it is in the topic; nil for a tombstone.
func (m *message) value() ([]byte, error) {
	forms := 0
	var out []byte
	if m.Value != nil {
		forms++
		out = m.Value
	}
	if m.Text != nil {
		forms++
		out = append([]byte{}, *m.Text...)
	}
	if m.Base64 != nil {
		forms++
		b, err := base64.StdEncoding.DecodeString(*m.Base64)
		if err != nil {
			return nil, fmt.Errorf("value in base64: %w", err)
		}
		out = b
	}
	if m.Tombstone {
		forms++
		out = nil
	}
	if forms != 1 {
		return nil, fmt.Errorf("record with %d forms of a value, want 1", forms)
	}
	return out, nil
}

func (m *message) headers() ([]checker.Header, error) {
	if len(m.Headers) == 0 {
		return nil, nil
	}
	out := make([]checker.Header, 0, len(m.Headers))
	for _, h := range m.Headers {
		v := checker.Header{Key: h.Key}
		switch {
		case h.Text != nil:
			v.Value = []byte(*h.Text)
		case h.Base64 != nil:
			b, err := base64.StdEncoding.DecodeString(*h.Base64)
			if err != nil {
				return nil, fmt.Errorf("header in base64: %w", err)
			}
			v.Value = b
		}
		out = append(out, v)
	}
	return out, nil
}
