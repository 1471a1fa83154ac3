package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pointsmanhq/pointsman/pkg/overview"
	"github.com/pointsmanhq/pointsman/wsnode/internal/kafka"
)

// maxRecord is the largest record that a link carries.
const maxRecord = 100 << 20

func (d *doctor) kafka(ctx context.Context) {
	i, err := kafka.Inspect(d.cfg.Kafka)
	if err != nil {
		d.wrong("kafka", err.Error(), "correct the settings of Kafka")
		return
	}
	defer i.Close()
	from, ok := d.brokers(ctx, i)
	if !ok {
		d.skip("topic", "topic, group, transactions and records are not examined, because Kafka does not answer")
		return
	}
	d.session(ctx, i, from)
	if !d.topic() {
		d.skip("records", "transactions and records are not examined, because the topic is not there")
		return
	}
	d.topicSettings(ctx, i, from)
	d.group(ctx, i, from)
	d.log(ctx, i)
}

// brokers asks those that are given, and tries those that they name. It returns one that answers.
func (d *doctor) brokers(ctx context.Context, i *kafka.Inspector) (string, bool) {
	const check = "kafka"
	var dead []string
	var last error
	from := ""
	for _, addr := range d.cfg.Kafka.Brokers {
		err := d.ask(ctx, func(ctx context.Context) error {
			s, err := i.Ask(ctx, addr)
			if err == nil && (d.state == nil || d.state.TopicErr != nil) {
				d.state, from = s, addr
			}
			return err
		})
		if err != nil {
			dead = append(dead, addr+" ("+plain(err)+")")
			last = err
		}
	}
	if d.state == nil {
		d.wrong(check, "no broker answers: "+strings.Join(dead, ", "), remedyForKafka(last))
		return "", false
	}
	well := true
	if len(dead) > 0 {
		well = false
		d.wrong(check, fmt.Sprintf("%d of %d brokers given do not answer: %s", len(dead), len(d.cfg.Kafka.Brokers), strings.Join(dead, ", ")),
			"start them, or take them out of --kafka: a node that starts while the others are away would not find the cluster")
	}
	var unreachable []string
	var mu sync.Mutex
	var asking sync.WaitGroup
	for _, b := range d.state.Brokers {
		if slices.Contains(d.cfg.Kafka.Brokers, b.Addr) {
			continue // asked above
		}
		asking.Go(func() {
			err := d.ask(ctx, func(ctx context.Context) error {
				_, err := i.Ask(ctx, b.Addr)
				return err
			})
			if err != nil {
				mu.Lock()
				defer mu.Unlock()
				unreachable = append(unreachable, fmt.Sprintf("broker %d at %s (%s)", b.ID, b.Addr, plain(err)))
			}
		})
	}
	asking.Wait()
	slices.Sort(unreachable)
	if len(unreachable) > 0 {
		well = false
		d.wrong(check, "the cluster names brokers that cannot be reached from here: "+strings.Join(unreachable, ", "),
			"correct their advertised.listeners, or open the way to them: their partitions cannot be read")
	}
	if well {
		d.ok(check, "%s", plural(len(d.state.Brokers), "broker answers", "brokers answer"))
	}
	return from, true
}

func remedyForKafka(err error) string {
	text := strings.ToLower(err.Error())
	switch {
	case strings.Contains(text, "sasl") || strings.Contains(text, "authenti"):
		return "compare --kafka-sasl-mechanism, --kafka-user and the password file with the brokers' users"
	case strings.Contains(text, "tls") || strings.Contains(text, "certificate") || strings.Contains(text, "closed the connection"):
		return "compare --kafka-tls, the certificate files and --kafka-sasl-mechanism with the listener's security protocol"
	}
	return "start the brokers, or say where they are with --kafka; nodes wait until one answers"
}

// session asks whether the brokers take the group's session timeout.
func (d *doctor) session(ctx context.Context, i *kafka.Inspector, from string) {
	const check = "session"
	ours := d.cfg.GroupSessionTimeout
	var limits map[string]string
	err := d.ask(ctx, func(ctx context.Context) (err error) {
		limits, err = i.BrokerSettings(ctx, d.broker(from), "group.min.session.timeout.ms", "group.max.session.timeout.ms")
		return err
	})
	least, okLeast := millis(limits["group.min.session.timeout.ms"])
	most, okMost := millis(limits["group.max.session.timeout.ms"])
	switch {
	case err == nil && okLeast && ours < least:
		d.wrong(check, fmt.Sprintf("the brokers refuse a session timeout of %s: their least is %s", ours, least),
			fmt.Sprintf("set --group-session-timeout=%s, or lower the brokers' group.min.session.timeout.ms", least))
		return
	case err == nil && okMost && ours > most:
		d.wrong(check, fmt.Sprintf("the brokers refuse a session timeout of %s: their most is %s", ours, most),
			fmt.Sprintf("set --group-session-timeout=%s or less", most))
		return
	case err == nil && okLeast && okMost:
		d.ok(check, "the brokers take a session timeout of %s (they allow %s to %s)", ours, least, most)
		return
	}
	// They do not say, so we try.
	err = d.ask(ctx, func(ctx context.Context) error { return i.TrySession(ctx, from, d.cfg.Group, ours) })
	switch {
	case errors.Is(err, kafka.ErrNoCoordinator):
		d.noCoordinator(check)
	case err == nil:
		d.ok(check, "the brokers take a session timeout of %s", ours)
	case errors.Is(err, kafka.ErrSessionTimeout):
		d.wrong(check, fmt.Sprintf("the brokers refuse a session timeout of %s", ours),
			"raise --group-session-timeout (6s is what brokers allow by default), or lower the brokers' group.min.session.timeout.ms")
	default:
		d.wrong(check, "the consumer group "+d.cfg.Group+" cannot be joined: "+plain(err),
			"let this user READ the group (kafka-acls.sh --add --allow-principal User:... --operation Read --group "+d.cfg.Group+")")
	}
}

func (d *doctor) broker(addr string) kafka.Broker {
	for _, b := range d.state.Brokers {
		if b.Addr == addr {
			return b
		}
	}
	if len(d.state.Brokers) > 0 {
		return d.state.Brokers[0]
	}
	return kafka.Broker{Addr: addr}
}

func millis(text string) (time.Duration, bool) {
	n, err := strconv.ParseInt(text, 10, 64)
	return time.Duration(n) * time.Millisecond, err == nil
}

// topic looks at the topic's identity, leaders and replicas.
func (d *doctor) topic() bool {
	const check = "topic"
	s := d.state
	name := d.cfg.Kafka.Topic
	switch {
	case errors.Is(s.TopicErr, kafka.ErrTopicNotFound):
		d.wrong(check, "topic "+name+" does not exist", "create it: kafka-topics.sh --create --topic "+name+" --partitions N (pointsman never creates topics), or correct --topic")
		return false
	case s.TopicErr != nil:
		d.wrong(check, "topic "+name+": "+plain(s.TopicErr), "let this user READ and DESCRIBE the topic, or wait until it has leaders")
		return false
	case s.Topic.ID == [16]byte{}:
		d.wrong(check, "the brokers give topics no ids", "upgrade them to Kafka 2.8 or later: without ids a recreated topic looks like the old one")
		return false
	}
	var leaderless, lagging, single []int32
	for p, st := range s.Partitions {
		switch {
		case st.Leader == "":
			leaderless = append(leaderless, int32(p))
		case st.InSync < st.Replicas:
			lagging = append(lagging, int32(p))
		case st.Replicas == 1:
			single = append(single, int32(p))
		}
	}
	if len(leaderless) > 0 {
		d.wrong(check, "no leader for partitions "+overview.Ranges(leaderless), "bring their brokers back; until then those keys are not served")
	}
	if len(lagging) > 0 {
		d.warn(check, "replicas are out of sync for partitions "+overview.Ranges(lagging), "bring the missing brokers back before another one fails")
	}
	if len(single) > 0 && len(s.Brokers) > 1 {
		d.warn(check, fmt.Sprintf("%s have a single replica", plural(len(single), "partition", "partitions")), "raise the replication factor: a broker that stops takes them with it")
	}
	if len(leaderless)+len(lagging) == 0 {
		d.ok(check, "%s: %s, %s of each", name, plural(len(s.Partitions), "partition", "partitions"), plural(s.Partitions[0].Replicas, "replica", "replicas"))
	}
	if d.picture != nil && d.picture.Topic != nil && d.picture.Topic.Partitions > s.Topic.Partitions {
		d.wrong(check, fmt.Sprintf("etcd knows %d partitions, Kafka %d", d.picture.Topic.Partitions, s.Topic.Partitions),
			"if the topic was created anew, let all nodes stop and start; else --kafka names another cluster")
	}
	return true
}

// topicSettings looks for settings that break a promise.
func (d *doctor) topicSettings(ctx context.Context, i *kafka.Inspector, from string) {
	const check = "topic settings"
	var set map[string]string
	err := d.ask(ctx, func(ctx context.Context) (err error) {
		set, err = i.TopicSettings(ctx, from, "unclean.leader.election.enable", "min.insync.replicas", "retention.ms", "cleanup.policy", "max.message.bytes")
		return err
	})
	if err != nil {
		d.skip(check, "they cannot be read (%s); allow DESCRIBE_CONFIGS on the topic to have them examined", plain(err))
		return
	}
	well := true
	if set["unclean.leader.election.enable"] == "true" {
		well = false
		d.wrong(check, "unclean.leader.election.enable=true: a replica that lags may become leader, and delivered records are rewritten",
			"set it to false (kafka-configs.sh --alter --topic "+d.cfg.Kafka.Topic+" --add-config unclean.leader.election.enable=false)")
	}
	replicas := d.state.Partitions[0].Replicas
	if least, err := strconv.Atoi(set["min.insync.replicas"]); err == nil {
		switch {
		case least > replicas:
			well = false
			d.wrong(check, fmt.Sprintf("min.insync.replicas=%d, but there are %s: producers with acks=all cannot write", least, plural(replicas, "replica", "replicas")), "lower it, or add replicas")
		case least == 1 && replicas > 2:
			well = false
			d.warn(check, fmt.Sprintf("min.insync.replicas=1 of %d replicas: a record that one broker alone has may be lost with it, after it was delivered", replicas), "set it to 2, and acks=all at the producers")
		}
	}
	if keep, ok := millis(set["retention.ms"]); ok && keep > 0 && keep < 10*time.Minute && strings.Contains(set["cleanup.policy"], "delete") {
		well = false
		d.warn(check, fmt.Sprintf("retention.ms=%d: a client that was away for longer than %s is told of a gap", keep.Milliseconds(), keep), "keep records for as long as clients may be away")
	}
	if keep, ok := millis(set["retention.ms"]); ok && keep > 0 && keep < d.cfg.ProducerMetadataAge && strings.Contains(set["cleanup.policy"], "delete") {
		well = false
		d.warn(check, fmt.Sprintf("retention.ms=%d is shorter than --producer-metadata-age=%s: when partitions are added, what producers still write by the old count may be gone before clients that are away come for it",
			keep.Milliseconds(), d.cfg.ProducerMetadataAge), "keep records for longer, or lower metadata.max.age.ms of all producers and --producer-metadata-age with it")
	}
	if most, err := strconv.ParseInt(set["max.message.bytes"], 10, 64); err == nil && most > maxRecord {
		well = false
		d.warn(check, fmt.Sprintf("max.message.bytes=%d: clients are told of a gap in place of a record above %d", most, maxRecord), "set it to 104857600 or less")
	}
	if well {
		text := "no unclean elections"
		if strings.Contains(set["cleanup.policy"], "compact") {
			text += "; compacted: who resumes gets only the newest record of its key from before"
		}
		d.ok(check, "%s", text)
	}
}

func (d *doctor) noCoordinator(check string) {
	d.wrong(check, "no broker coordinates consumer groups",
		"look at the topic __consumer_offsets: with fewer brokers than offsets.topic.replication.factor it cannot be made; a cluster that has just started needs a moment")
}

// group looks for strangers in the consumer group.
func (d *doctor) group(ctx context.Context, i *kafka.Inspector, from string) {
	const check = "group"
	var g *kafka.GroupState
	err := d.ask(ctx, func(ctx context.Context) (err error) {
		g, err = i.GroupState(ctx, from, d.cfg.Group)
		return err
	})
	if errors.Is(err, kafka.ErrNoCoordinator) {
		d.noCoordinator(check)
		return
	}
	if err != nil {
		d.skip(check, "the consumer group %s cannot be described (%s)", d.cfg.Group, plain(err))
		return
	}
	var strangers []string
	for _, m := range g.Members {
		if !strings.HasPrefix(m.Client, "pointsman-") {
			strangers = append(strangers, fmt.Sprintf("%q at %s", m.Client, strings.TrimPrefix(m.Host, "/")))
		}
	}
	slices.Sort(strangers)
	if len(strangers) > 0 {
		d.wrong(check, fmt.Sprintf("other programs are members of %s and take its partitions: %s", d.cfg.Group, strings.Join(strangers[:min(3, len(strangers))], ", ")),
			"give them, or the nodes (--group), another group")
		return
	}
	d.ok(check, "%s has %s", d.cfg.Group, plural(len(g.Members), "member", "members"))
}
