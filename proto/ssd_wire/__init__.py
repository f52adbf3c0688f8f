"""The contract in plain Python types, shared by both daemons: records, their conversion, and what both compute of them.

Records (`messages`, `uploads`) and the task digest know no protobuf; `to_proto` and `from_proto` are the only files that
do. What a stranger may send is checked in `from_proto` and is `Malformed`. No daemon, no torch and no network live here.
"""
