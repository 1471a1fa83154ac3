package wsnode

import (
	"errors"
	"fmt"
	"strings"

	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// scanned tells an offset outside the log from a read that failed.
func scanned(b *source.Batch, err error) (*source.Batch, *source.Bounds, error) {
	var outside *kafka.OutOfRangeError
	if errors.As(err, &outside) {
		return nil, &outside.Bounds, nil
	}
	return b, nil, err
}

// kafkaSink translates the one failure after which a reader does not go on.
type kafkaSink struct{ runner.Sink }

func (s kafkaSink) Failed(err error) {
	if errors.Is(err, kafka.ErrTopicChanged) {
		err = fmt.Errorf("%w: %w", runner.ErrStopped, err)
	}
	s.Sink.Failed(err)
}

// groupMember hears of assignments. A claim is noted before the loop reads, so that the loop's word that it is
// readable finds it.
type groupMember struct{ n *Node }

func (m groupMember) Assigned(p, generation int32, committed int64) {
	m.n.claims.Assigned(p, generation, m.n.group.Generation())
	m.n.runner.Assign(p, committed)
}

func (m groupMember) Revoked(p int32) {
	m.n.claims.Revoked(p)
	m.n.runner.Revoke(p)
}

// endpointHost is the host:port of an etcd endpoint, which may be a URL.
func endpointHost(endpoint string) string {
	if _, rest, ok := strings.Cut(endpoint, "://"); ok {
		endpoint = rest
	}
	return strings.TrimSuffix(endpoint, "/")
}
