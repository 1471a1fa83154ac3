# The node's image. Two ways, one result:
#   docker build -f deploy/wsnode.Dockerfile .                     builds from source (the default target)
#   make images                                                    packs bin/wsnode, where no image can be pulled
# The stages that need nothing come first: the classic builder stops at its target and never looks further.

FROM scratch AS prebuilt
COPY bin/wsnode /wsnode
COPY bin/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENV POINTSMAN_ADMIN=0.0.0.0:9081
EXPOSE 9080 9081
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/wsnode", "healthcheck"]
ENTRYPOINT ["/wsnode"]

FROM golang:1.26 AS build
WORKDIR /src
COPY . .
ARG VERSION=devel
RUN cd wsnode && GOWORK=off CGO_ENABLED=0 go build -trimpath -buildvcs=false \
      -ldflags "-s -w -X github.com/pointsmanhq/pointsman/pkg/buildinfo.version=${VERSION}" \
      -o /wsnode ./cmd/wsnode

FROM scratch AS release
COPY --from=build /wsnode /wsnode
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
USER 65532:65532
ENV POINTSMAN_ADMIN=0.0.0.0:9081
EXPOSE 9080 9081
HEALTHCHECK --interval=5s --timeout=3s --start-period=30s CMD ["/wsnode", "healthcheck"]
ENTRYPOINT ["/wsnode"]
