"""Messages of Istio's certificate service. `ca_pb2` is generated from `ca.proto`:

python -m grpc_tools.protoc -I. --python_out=. --pyi_out=. controlplane/citadel/istio/ca.proto
"""
