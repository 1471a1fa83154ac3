package wsnode

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
	"github.com/pointsmanhq/pointsman/wsnode/internal/runner"
	"github.com/pointsmanhq/pointsman/wsnode/internal/source"
)

// kafkaLog lets loops read through the Kafka client.
type kafkaLog struct{ *kafka.Client }

func (k kafkaLog) Scan(ctx context.Context, p int32, from int64, maxBytes int32) (*source.Batch, *source.Bounds, error) {
	b, err := k.Client.Scan(ctx, p, from, maxBytes)
	var outside *kafka.OutOfRangeError
	if errors.As(err, &outside) {
		return nil, &outside.Bounds, nil
	}
	return b, nil, err
}

func (k kafkaLog) Read(p int32, from int64, sink runner.Sink) {
	k.Client.Read(p, from, kafkaSink{sink})
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
