package stack

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
	"github.com/twmb/franz-go/pkg/sasl/plain"

	"github.com/pointsmanhq/pointsman/integration/internal/pki"
	"github.com/pointsmanhq/pointsman/integration/internal/procs"
	"github.com/pointsmanhq/pointsman/integration/internal/realetcd"
	"github.com/pointsmanhq/pointsman/integration/internal/realkafka"
)

// The users of a secured Kafka. Each may read Options.Topic, and use the groups that begin with "pointsman-"; PlainUser
// may also write to the topic. All else is refused.
const (
	ScramUser = "pointsman"
	PlainUser = "plain"
	Password  = "Straße 42" // not ASCII: it has to be prepared as RFC 4013 says
)

// linkToken is what routers show to nodes; files with it end with a line break.
const linkToken = "a token for links\n"

// Security is what a secured stack is made with. The stack's own clients, Kafka() and Etcd(), use listeners without
// any of it, which its programs are not told.
type Security struct {
	Kafka     string // SASL_SSL
	Etcd      string // asks for client certificates
	Authority *pki.Authority
	Node      pki.Pair // what nodes show to routers and to etcd
	Router    pki.Pair
	Password  string // file
	LinkToken string // file
}

// SecuredStack is a Stack of kind Secured.
type SecuredStack interface {
	Stack
	Security() *Security
}

// KafkaFlags let a program use the secured Kafka.
func (s *Security) KafkaFlags() []string {
	return []string{
		"--kafka=" + s.Kafka, "--kafka-tls", "--kafka-ca-file=" + s.Authority.File,
		"--kafka-sasl-mechanism=SCRAM-SHA-512", "--kafka-user=" + ScramUser, "--kafka-password-file=" + s.Password,
	}
}

// EtcdFlags let a program use the secured etcd.
func (s *Security) EtcdFlags(show pki.Pair) []string {
	return []string{
		"--etcd=" + s.Etcd, "--etcd-tls", "--etcd-ca-file=" + s.Authority.File,
		"--etcd-cert-file=" + show.Cert, "--etcd-key-file=" + show.Key,
	}
}

func (s *Security) nodeFlags() []string {
	return append(append(s.KafkaFlags(), s.EtcdFlags(s.Node)...),
		"--tls-cert-file="+s.Node.Cert, "--tls-key-file="+s.Node.Key, "--tls-client-ca-file="+s.Authority.File,
		"--link-token-file="+s.LinkToken)
}

func (s *Security) routerFlags() []string { return append(s.EtcdFlags(s.Router), s.LinkFlags()...) }

// LinkFlags let a router use the nodes.
func (s *Security) LinkFlags() []string {
	return []string{
		"--link-tls", "--link-ca-file=" + s.Authority.File, "--link-cert-file=" + s.Router.Cert, "--link-key-file=" + s.Router.Key,
		"--link-token-file=" + s.LinkToken,
	}
}

// newSecurity makes the certificates and secrets.
func newSecurity(dir string, ports *procs.Ports) (*Security, error) {
	dir = filepath.Join(dir, "secrets")
	s := &Security{Password: filepath.Join(dir, "password"), LinkToken: filepath.Join(dir, "link-token")}
	err := errors.Join(os.MkdirAll(dir, 0o700), os.WriteFile(s.Password, []byte(Password+"\n"), 0o600), os.WriteFile(s.LinkToken, []byte(linkToken), 0o600))
	if err != nil {
		return nil, fmt.Errorf("make secrets: %w", err)
	}
	for _, addr := range []*string{&s.Kafka, &s.Etcd} {
		if *addr, err = ports.Take(); err != nil {
			return nil, err
		}
	}
	if s.Authority, err = pki.New(dir, "authority"); err != nil {
		return nil, err
	}
	for name, pair := range map[string]*pki.Pair{"node": &s.Node, "router": &s.Router} {
		if *pair, err = s.Authority.Issue(name, time.Hour); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// guard gives Kafka and etcd the listeners that programs use.
func (s *Security) guard(k *realkafka.Config, e *realetcd.Config) error {
	server, err := s.Authority.Issue("server", time.Hour)
	if err != nil {
		return err
	}
	bundle, err := server.Bundle()
	if err != nil {
		return err
	}
	const secure = "listener.name.secure."
	k.Properties = append(k.Properties,
		"listeners=PLAINTEXT://"+k.Addr+",SECURE://"+s.Kafka+",CONTROLLER://"+k.Controller,
		"advertised.listeners=PLAINTEXT://"+k.Addr+",SECURE://"+s.Kafka,
		"listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,SECURE:SASL_SSL",
		secure+"ssl.keystore.type=PEM",
		secure+"ssl.keystore.location="+bundle,
		secure+"sasl.enabled.mechanisms=PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
		secure+"plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule required user_"+PlainUser+`="`+escaped(Password)+`";`,
		secure+"scram-sha-256.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
		secure+"scram-sha-512.sasl.jaas.config=org.apache.kafka.common.security.scram.ScramLoginModule required;",
		// Who comes in plain text is the test, and the broker itself.
		"authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer",
		"super.users=User:ANONYMOUS",
	)
	for _, m := range []string{"SCRAM-SHA-256", "SCRAM-SHA-512"} {
		k.Format = append(k.Format, "--add-scram", m+"=[name="+ScramUser+",password="+Password+"]")
	}
	e.Secure = s.Etcd
	e.Flags = append(e.Flags, "--cert-file="+server.Cert, "--key-file="+server.Key, "--client-cert-auth", "--trusted-ca-file="+s.Authority.File)
	return nil
}

// escaped is a text as a Java properties file wants it, which is read as ISO 8859-1.
func escaped(text string) string {
	var b strings.Builder
	for _, r := range text {
		if r > 0x7e {
			fmt.Fprintf(&b, `\u%04x`, r)
		} else {
			b.WriteRune(r)
		}
	}
	return b.String()
}

// allow lets the programs do what README says that they need, and no more.
func allow(ctx context.Context, brokers []string, topic string) error {
	client, err := kgo.NewClient(kgo.AlwaysRetryEOF(), kgo.SeedBrokers(brokers...))
	if err != nil {
		return fmt.Errorf("allow users: %w", err)
	}
	defer client.Close()
	req := kmsg.NewPtrCreateACLsRequest()
	allowed := func(user string, kind kmsg.ACLResourceType, name string, pattern kmsg.ACLResourcePatternType, op kmsg.ACLOperation) {
		c := kmsg.NewCreateACLsRequestCreation()
		c.ResourceType, c.ResourceName, c.ResourcePatternType = kind, name, pattern
		c.Principal, c.Host, c.Operation, c.PermissionType = "User:"+user, "*", op, kmsg.ACLPermissionTypeAllow
		req.Creations = append(req.Creations, c)
	}
	for _, user := range []string{ScramUser, PlainUser} {
		allowed(user, kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLOperationRead)
		allowed(user, kmsg.ACLResourceTypeGroup, "pointsman-", kmsg.ACLResourcePatternTypePrefixed, kmsg.ACLOperationRead)
	}
	allowed(PlainUser, kmsg.ACLResourceTypeTopic, topic, kmsg.ACLResourcePatternTypeLiteral, kmsg.ACLOperationWrite)
	resp, err := req.RequestWith(ctx, client)
	if err != nil {
		return fmt.Errorf("allow users: %w", err)
	}
	for _, r := range resp.Results {
		if err := kerr.ErrorForCode(r.ErrorCode); err != nil {
			return fmt.Errorf("allow users: %w", err)
		}
	}
	return nil
}

// allowed waits until the broker has heard of that from the controller: a program that comes first is refused and ends.
func (s *Security) allowed(ctx context.Context, topic string) error {
	client, err := kgo.NewClient(
		kgo.AlwaysRetryEOF(), kgo.SeedBrokers(s.Kafka),
		kgo.DialTLSConfig(&tls.Config{RootCAs: s.Authority.Pool(), MinVersion: tls.VersionTLS12}),
		kgo.SASL(plain.Auth{User: PlainUser, Pass: Password}.AsMechanism()), // whose rules are the last
	)
	if err != nil {
		return fmt.Errorf("await rules: %w", err)
	}
	defer client.Close()
	req := kmsg.NewPtrMetadataRequest()
	req.Topics = []kmsg.MetadataRequestTopic{{Topic: &topic}}
	req.IncludeTopicAuthorizedOperations = true
	const write = 1 << kmsg.ACLOperationWrite
	for {
		resp, err := req.RequestWith(ctx, client)
		if err != nil {
			return fmt.Errorf("await rules: %w", err)
		}
		if len(resp.Topics) == 1 && resp.Topics[0].ErrorCode == 0 && resp.Topics[0].AuthorizedOperations&write != 0 {
			return nil
		}
		timer := time.NewTimer(20 * time.Millisecond)
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return fmt.Errorf("await rules: %w", context.Cause(ctx))
		}
	}
}

// Security is nil unless the stack is of kind Secured.
func (c *cluster) Security() *Security {
	if r, ok := c.back.(*real); ok {
		return r.security
	}
	return nil
}
